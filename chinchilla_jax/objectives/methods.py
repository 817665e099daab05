"""The methods of --adversarial.method: where each perturbs, and what trains there.

With sums over tokens, W the weight of the clean tokens and w `weight` (shared by the `examples` of a row), these stand
beside the clean pass, CE(e) / W, and are summed with the other terms (costs: planning/attacks.py):

fgm      w A(e + d) / W, d = size * steepest(g), g from the clean pass's own backward pass (Miyato et al. 2017); A is
         the divergence from the clean prediction, or CE
vat      w KL(e, e + d) / W, d along the gradient of the KL at a small random probe (Miyato et al. 2018; the loss of the
         paper on ALUM, Liu et al. 2020, whose released code takes the normalised direction itself for its noise)
r3f      w symKL(e, e + z) / W, random z; no gradient reaches the embedding table through the noisy branch, and the
         clean one is no constant (Aghajanyan et al. 2021)
smart    w symKL(e, e + d) / W: d climbs the divergence from noise, both branches learn (Jiang et al. 2020)

and these alter that pass, so that only one of them can be; no clean pass is made of attacked rows:

pgd      CE(e + d) / W: K projected steps from a random start, only the last point trains (Madry et al. 2018); `loss` is
         that at the start
noise    CE(e + z) / W (NEFTune, Jain et al. 2024, with norm l2_sequence)
freelb   mean over K of CE(e + d_t) / W: every point of the ascent trains, the last step does not move d (Zhu et al.
         2020); `loss` is that of the first
softmax_margin   in closed form on the output side; see losses.py

`loss` in the metrics is the clean loss as it is minimised, `loss_attacked` the cross-entropy of the attacked rows.
Before `start` and between two attacks a step computes, and costs, what the plain one does.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from chinchilla_jax.objectives import losses
from chinchilla_jax.objectives.passes import Pass, Term, repeat, when
from chinchilla_jax.parallel.sharding import first_rows
from chinchilla_jax.types import Sums


# Points: (the attacked rows, a key) -> d, and the loss where the ascent starts if it is known.
def noise(at: Pass, key):
    """Noise alone; nobody computes the loss without it."""
    return at.noise(key), None


def step(at: Pass, key):
    """One step along the gradient that the clean backward pass gave for nothing."""
    return at.moved(at.noise(key), at.slope_nLD), None


def probe(at: Pass, key):
    """u <- steepest(gradient of the divergence at probe * size * u), K times from a random u; then d = size * u."""
    probed, random_nLD = at.cfg.probe * at.size(), at.along(at.noise(key))
    unit_nLD = repeat(at.cfg.steps, lambda u_nLD: at.along(jax.grad(at.divergence)(probed * u_nLD)), random_nLD)
    return at.size() * unit_nLD, None


def climb(of: Callable):
    """K projected steps up the loss `of` from a start."""

    def point(at: Pass, key):
        slope, start_nLD = jax.value_and_grad(partial(of, at)), at.inside(at.noise(key))
        value, g_nLD = slope(start_nLD)
        first_nLD = at.moved(start_nLD, g_nLD)
        return repeat(at.cfg.steps - 1, lambda d_nLD: at.moved(d_nLD, slope(d_nLD)[1]), first_nLD), value

    return point


# What trains at a point: beside the pass over all rows, or in it
def beside(point: Callable, learns: bool = False, held: bool = False, takes: int = 0, **more) -> Term:
    """Copies of the attacked rows moved to `point`, one an example of those that the pass does not take."""

    def find(now: Pass):
        n, at, weight = now.count(), now.rows(now.count()), now.cfg.weight / now.cfg.examples
        found, shown = optax.tree.zeros_like((now.params, now.hidden_BLD)), Sums.zero()
        for key in now.keys()[takes:]:
            delta_nLD, _ = point(at, key)

            def apart(params, hidden_BLD, delta_nLD=delta_nLD):
                return at.apart(params, first_rows(hidden_BLD, n), delta_nLD, weight, learns, held)

            if now.cfg.loss == "ce":
                grads, _, losses_nL = at.everything(weight, delta_nLD)
                grads = grads, jnp.zeros_like(now.hidden_BLD)
            else:
                grads, losses_nL = jax.grad(apart, (0, 1), has_aux=True)(now.params, now.hidden_BLD)
            found, shown = jax.tree.map(jnp.add, found, grads), shown + Sums.of(losses_nL, at.batch.weights)
        return found, shown

    return Term(find, learns=learns, takes=takes, **more)


def within(point: Callable) -> Term:
    """The attacked rows of the pass moved to `point`; further examples of a row stand beside it."""

    def alter(now: Pass) -> Pass:
        n, active, weights_BL = now.count(), now.active, now.batch.weights
        find = partial(point, now.rows(n), now.keys()[0])
        delta_nLD, start = when(active, find, lambda: optax.tree.zeros_like(jax.eval_shape(find)))

        def shows(losses_BL, _):
            hit, rest = (Sums.of(losses_BL[rows], weights_BL[rows]) for rows in (slice(n), slice(n, None)))
            loss = rest.loss + (hit.loss if start is None else jnp.where(active, start, hit.loss))
            attacked = jax.tree.map(lambda x: jnp.where(active, x, 0.0), hit)
            return Sums(loss, hit.weight + rest.weight, {"loss_attacked": attacked})

        weight = now.cfg.weight / now.cfg.examples
        return replace(now.weighted(active, weight), delta_nLD=delta_nLD[:n], shows=shows)

    return beside(point, alter=alter, takes=1)


def freelb_first(now: Pass) -> Pass:
    """The pass takes the attacked rows at the start of the ascent."""
    part, weights_BL, weight = now.rows(now.count()), now.batch.weights, now.cfg.weight / now.cfg.steps
    start_nLD = part.inside(part.noise(now.keys()[0]))[: now.count()] * now.active
    main = now.weighted(now.active, weight)
    return replace(main, delta_nLD=start_nLD, shows=lambda losses_BL, _: Sums.of(losses_BL, weights_BL))


def freelb_rest(now: Pass):
    """A term's `find`: the other points, of the attacked rows alone."""
    at = now.rows(now.count())

    def one(state):
        grads, delta_nLD, g_nLD, _ = state
        delta_nLD = at.moved(delta_nLD, g_nLD)
        more, g_nLD, losses_nL = at.everything(at.cfg.weight / at.cfg.steps, delta_nLD)
        return jax.tree.map(jnp.add, grads, more), delta_nLD, g_nLD, Sums.of(losses_nL, at.batch.weights)

    start = optax.tree.zeros_like(at.params), at.delta_nLD, at.slope_nLD, Sums.zero()
    grads, *_, last = repeat(at.cfg.steps - 1, one, start)
    return (grads,), last


def softmax_margin(now: Pass) -> Pass:
    """The target's logit lowered in the attacked rows, in the loss of the pass."""
    of, weights_BL = partial(losses.margin, now.config.objective.z_loss), now.batch.weights
    hit_BL = now.hit(now.active) * weights_BL

    def head(hidden_BLD, table_VD, batch):
        length_V = jax.lax.stop_gradient(jnp.linalg.norm(table_VD.astype(jnp.float32), axis=-1))
        margin_BL = now.cfg.radius * length_V[batch.targets] * (hit_BL > 0)
        return now.tiled(of, (hidden_BLD,), table_VD, (), batch.targets, margin_BL, batch.weights)

    def shows(_, figures):
        lowered_BL, plain_BL = figures
        return replace(Sums.of(plain_BL, weights_BL), others={"loss_attacked": Sums.of(lowered_BL, hit_BL)})

    return replace(now.weighted(now.active, now.cfg.weight), head=head, shows=shows)


# Terms that perturb no embeddings
def rdrop(now: Pass):
    """A second pass with other dropout masks; with the clean one R-Drop's (CE + CE') / 2 + w/2 symKL."""

    def apart(params, clean_BLD):
        def head(other_BLD, table_VD, batch):
            of, both = partial(losses.rdrop, now.cfg.rdrop), (other_BLD, clean_BLD)
            return now.tiled(of, both, table_VD, (), batch.targets, batch.weights)

        return now.base.loss(params, now.batch, jax.random.fold_in(now.key, 3), None, head, priced=False)[0]

    return jax.grad(apart, (0, 1))(now.params, now.hidden_BLD), Sums.zero()


def trust(now: Pass):
    """w symKL(now, before): `before` is what a running average of the parameters predicts (Jiang et al. 2020)."""
    before, of = now.carry["before"], partial(losses.divergence, "sym_kl")
    both = now.base.loss(before, now.batch, now.key, None, lambda *made: (0.0, made[:2]), priced=False)[1]

    def apart(params, now_BLD):
        weights_BL = now.batch.weights * now.cfg.proximity
        return now.tiled(of, (now_BLD,), now.base.table(params), (both,), now.batch.targets, weights_BL)[0]

    return jax.grad(apart, (0, 1))(now.params, now.hidden_BLD), Sums.zero()


def average(now: Pass):
    """Moved once a microbatch so that a step moves it as it should."""
    momentum = now.cfg.momentum ** (1 / now.config.train.microbatches)
    return {"before": optax.incremental_update(now.params, now.carry["before"], 1 - momentum)}


def proximity(axes: Any) -> Term:
    """The trust region; `axes` are the logical axes of what trains."""
    keeps = {"init": lambda params: {"before": jax.tree.map(jnp.copy, params)}, "carry_axes": {"before": axes}}
    return Term(trust, shows="", learns=True, follow=average, **keeps)


RDROP = Term(rdrop, shows="", learns=True)
METHODS = {
    "fgm": beside(step, slopes=Pass.count),
    "vat": beside(probe),
    "r3f": beside(noise, learns=True, held=True),
    "smart": beside(climb(Pass.divergence), learns=True),
    "pgd": within(climb(Pass.loss)),
    "noise": within(noise),
    "freelb": Term(freelb_rest, freelb_first, slopes=Pass.count),
    "softmax_margin": Term(alter=softmax_margin),
}
