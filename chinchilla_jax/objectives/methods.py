"""The methods of --adversarial.method: where each perturbs, and what trains there.

A perturbation d is added after the look-up, never to the tied output matrix; it is zero on padding and control pieces.
Of a microbatch the first n = fraction * B rows are attacked. With sums over tokens, W the weight of the clean tokens
and w `weight` (shared by the `examples` of a row), these stand beside the clean pass, CE(e) / W, and are summed with
the other terms (costs: planning/attacks.py):

fgm      w A(e + d) / W, d = size * steepest(g), g from the clean pass's own backward pass (Miyato et al. 2017); A is
         the divergence from the clean prediction, or CE
vat      w KL(e, e + d) / W, d along the gradient of the KL at a small random probe (Miyato et al. 2018; the virtual
         loss of ALUM, Liu et al. 2020, whose released code is another algorithm: its noise is the normalised direction
         itself, of size 1)
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
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives import losses
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.compose import Main, Pass, Term, zeros
from chinchilla_jax.objectives.rows import add, repeat, spread, sums, when
from chinchilla_jax.types import Batch, Sums

# Points: (attack, params, part, key, noise_key, clean_nLD, slope_nLD) -> d, and the loss where the ascent starts if it
# is known.


def fgm_point(attack: Attack, params, part, key, noise_key, clean_nLD, slope_nLD):
    """One step along the gradient that the clean backward pass gave for nothing."""
    return attack.moved(params, attack.noise(params, part, noise_key), slope_nLD, part), None


def vat_point(attack: Attack, params, part, key, noise_key, clean_nLD, *_):
    """u <- steepest(gradient of the divergence at probe * size * u), K times from a random u; then d = size * u."""
    size = attack.size(params, part)

    def one(unit_nLD):
        return attack.along(attack.uphill(params, clean_nLD, part, key, attack.cfg.probe * size * unit_nLD), part)

    return size * repeat(attack.cfg.steps, one, attack.along(attack.noise(params, part, noise_key), part)), None


def smart_point(attack: Attack, params, part, key, noise_key, clean_nLD, *_):
    """Steps of projected ascent on the divergence, from noise."""

    def one(delta_nLD):
        return attack.moved(params, delta_nLD, attack.uphill(params, clean_nLD, part, key, delta_nLD), part)

    return repeat(attack.cfg.steps, one, attack.start(params, part, noise_key)), None


def pgd_point(attack: Attack, params, part, key, noise_key, *_):
    """K projected steps from a start, and the loss at the start."""

    def loss(delta_nLD):
        return attack.base.loss(params, part, key, delta_nLD)[0]

    def one(delta_nLD):
        return attack.moved(params, delta_nLD, jax.grad(loss)(delta_nLD), part)

    start_nLD = attack.start(params, part, noise_key)
    value, g_nLD = jax.value_and_grad(loss)(start_nLD)
    return repeat(attack.cfg.steps - 1, one, attack.moved(params, start_nLD, g_nLD, part)), value


def noise_point(attack: Attack, params, part, key, noise_key, *_):
    """Noise alone; nobody computes the loss without it."""
    return attack.noise(params, part, noise_key), None


# What trains at a point: beside the pass over all rows, or in it


def beside(point: Callable, learns: bool = False, held: bool = False, first: int = 0):
    """A term's `find`: copies of the attacked rows moved to `point`, one an example from `first` on."""

    def find(attack: Attack, params, batch, key, step, carry, made: Pass):
        cfg, B = attack.cfg, len(batch.tokens)
        part, clean_nLD, slope_nLD = attack.rows.take((batch, made.hidden_BLD, made.slope_nLD))
        weight, shown = cfg.weight / cfg.examples, Sums.zero()
        grads = zeros((params, clean_nLD) if learns else (params,))
        for noise_key in attack.keys(key)[first:]:
            delta_nLD, _ = point(attack, params, part, key, noise_key, clean_nLD, slope_nLD)
            if cfg.loss == "ce":
                more, _, losses_nL, _ = attack.everything(params, part, key, delta_nLD, part.weights * weight)
                more = (more,)
            else:
                how = part, key, delta_nLD, weight, learns, held
                of = jax.grad(attack.apart, (0, 1) if learns else (0,), has_aux=True)
                more, losses_nL = of(params, clean_nLD, *how)
            grads, shown = add(grads, more), shown + sums(losses_nL, part.weights)
        return (grads[0], spread(grads[1][: attack.rows.count(B)], B) if learns else None), shown

    return find


def within(point: Callable):
    """The attacked rows of the pass moved to `point`; further examples of a row stand beside it."""

    def alter(attack: Attack, params, batch: Batch, key, step, carry) -> Main:
        n, active, part = attack.rows.count(len(batch.tokens)), attack.active(step), attack.rows.take(batch)

        def find():
            return point(attack, params, part, key, attack.keys(key)[0])

        delta_nLD, start = when(active, find, lambda: zeros(jax.eval_shape(find)))

        def shows(losses_BL, _):
            hit, rest = (sums(losses_BL[rows], batch.weights[rows]) for rows in (slice(n), slice(n, None)))
            loss = rest.loss + (hit.loss if start is None else jnp.where(active, start, hit.loss))
            attacked = jax.tree.map(lambda x: jnp.where(active, x, 0.0), hit)
            return Sums(loss, hit.weight + rest.weight, {"loss_attacked": attacked})

        weight = attack.cfg.weight / attack.cfg.examples
        return Main(attack.weighted(batch, active, weight), delta_nLD[:n], shows=shows)

    return alter


def freelb_first(attack: Attack, params, batch, key, step, carry) -> Main:
    """The pass takes the attacked rows at the start of the ascent."""
    n, active = attack.rows.count(len(batch.tokens)), attack.active(step)
    start_nLD = attack.start(params, attack.rows.take(batch), attack.keys(key)[0]) * active
    weighted = attack.weighted(batch, active, attack.cfg.weight / attack.cfg.steps)
    return Main(weighted, start_nLD[:n], shows=lambda losses_BL, _: sums(losses_BL, batch.weights))


def freelb_rest(attack: Attack, params, batch, key, step, carry, made: Pass):
    """A term's `find`: the other points, of the attacked rows alone."""
    part, delta_nLD, g_nLD = attack.rows.take((batch, made.delta_nLD, made.slope_nLD))
    weights_nL = part.weights * attack.cfg.weight / attack.cfg.steps

    def one(state):
        grads, delta_nLD, g_nLD, _ = state
        delta_nLD = attack.moved(params, delta_nLD, g_nLD, part)
        more, g_nLD, losses_nL, _ = attack.everything(params, part, key, delta_nLD, weights_nL)
        return add(grads, more), delta_nLD, g_nLD, sums(losses_nL, part.weights)

    grads, _, _, last = repeat(attack.cfg.steps - 1, one, (zeros(params), delta_nLD, g_nLD, Sums.zero()))
    return (grads, None), last


def softmax_margin(attack: Attack, params, batch, key, step, carry) -> Main:
    """The target's logit lowered in the attacked rows, in the loss of the pass."""
    of, active = partial(losses.margin, attack.config.objective.z_loss), attack.active(step)
    hit_BL = attack.hit(batch) * active * batch.weights

    def head(hidden_BLD, table_VD, part):
        length_V = jax.lax.stop_gradient(jnp.linalg.norm(table_VD.astype(jnp.float32), axis=-1))
        margin_BL = attack.cfg.radius * length_V[part.targets] * (hit_BL > 0)
        arrays = part.targets, margin_BL, part.weights
        return losses.tiled(of, (hidden_BLD,), table_VD, (), arrays, attack.tile_tokens)

    def shows(_, figures):
        lowered_BL, plain_BL = figures
        clean = sums(plain_BL, batch.weights)
        return Sums(clean.loss, clean.weight, {"loss_attacked": sums(lowered_BL, hit_BL)})

    return Main(attack.weighted(batch, active, attack.cfg.weight), head=head, shows=shows)


class Method(NamedTuple):
    """What a method makes of the pass over all rows, and what it adds beside it."""

    alter: Callable | None = None
    find: Callable | None = None
    slopes: bool = False
    learns: bool = False

    def term(self, attack: Attack) -> Term:
        """What it adds, if anything."""
        adds = self.find if self.alter is None or self.slopes or attack.cfg.examples > 1 else None
        slopes = {"slopes": attack.rows.count} if self.slopes else {}
        find = adds and partial(adds, attack)
        return Term(find, attack.active, shows="loss_attacked", learns=self.learns, **slopes)


METHODS = {
    "fgm": Method(find=beside(fgm_point), slopes=True),
    "vat": Method(find=beside(vat_point)),
    "r3f": Method(find=beside(noise_point, learns=True, held=True), learns=True),
    "smart": Method(find=beside(smart_point, learns=True), learns=True),
    "pgd": Method(within(pgd_point), beside(pgd_point, first=1)),
    "noise": Method(within(noise_point), beside(noise_point, first=1)),
    "freelb": Method(freelb_first, freelb_rest, slopes=True),
    "softmax_margin": Method(softmax_margin),
}
