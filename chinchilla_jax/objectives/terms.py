"""Losses that stand beside the clean pass and are summed, whichever are on.

A perturbation d is added after the look-up, never to the tied output matrix; it is zero on padding and control pieces.
Of a microbatch the first n = fraction * B rows are attacked. With sums of cross-entropies over tokens, W the weight of
the clean tokens and w `weight` (shared by the `examples` of a row), CE(e) / W gets

fgm        w A(e + d) / W, d = size * steepest(g), g from the clean pass's own backward pass (Miyato et al. 2017); A is
           the divergence from the clean prediction, or CE. Costs 1 + fraction.
vat        w KL(e, e + d) / W, d along the gradient of the KL at a small random probe (Miyato et al. 2018; the virtual
           loss of ALUM, Liu et al. 2020, whose released code is another algorithm: its noise is the normalised
           direction itself, of size 1). Costs 1 + (1 + 2/3 K) fraction, and a product more in each head.
r3f        w symKL(e, e + z) / W, random z; no gradient reaches the embedding table through the noisy branch, and the
           clean one is no constant (Aghajanyan et al. 2021). Costs 1 + fraction and three products of a head.
smart      w symKL(e, e + d) / W: d climbs the divergence from noise, both branches learn (Jiang et al. 2020); with
           `proximity`. Costs 1 + (1 + 2/3 K) fraction + 1/3.
proximity, rdrop, copies   on their own functions below.

`loss` in the metrics is the clean loss as it is minimised, `loss_attacked` the cross-entropy of the attacked rows.
Before `start` and between two attacks a step computes, and costs, what the plain one does.

A term is (params, batch, key, step, carry, clean) -> (gradients of the parameters, and of the clean hidden states or
None where they are a constant to it), Sums of what it shows. The clean pass is made once, for all of them; its
gradients are pulled back once, with what the terms have asked of its hidden states, and once more where a term needs
dCE/de beforehand and another one moves the clean branch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives import corruption, losses
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.losses import tiled
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.objectives.rows import Rows, add, repeat, spread, sums, when
from chinchilla_jax.types import Batch, Sums


class Clean(NamedTuple):
    """The clean pass: hidden states (B, L, D), and dCE/de (n, L, D) of the first rows where a term wants it."""

    hidden_BLD: jax.Array
    slope_nLD: jax.Array | None


class Term(NamedTuple):
    """`find` as above, when it is active, for how many of B rows it needs a slope, and the name of what it shows."""

    find: Callable
    active: Callable[[Any], bool | jax.Array]
    slopes: Callable[[int], int] = lambda rows: 0
    shows: str = ""
    learns: bool = False  # moves the clean branch
    follow: Callable = lambda params, carry: carry  # what becomes of the carry, in every step
    keeps: dict = {}  # fields of the objective


def summed(attack: Attack, terms: list[Term]) -> Objective:
    """The clean loss and all terms."""
    base, names = attack.base, tuple(term.shows for term in terms if term.shows)
    learns = any(term.learns for term in terms)

    def gradients(params, batch: Batch, key, step, carry):
        B, L = batch.tokens.shape
        n = max(term.slopes(B) for term in terms)

        def loss(params, delta_nLD=None):
            return base.loss(params, batch, key, None if delta_nLD is None else spread(delta_nLD, n, B))

        at = (params, jnp.zeros((n, L, attack.config.model.d_model))) if n else (params,)
        (total, hidden_BLD), pull = jax.vjp(loss, *at)
        one, none_BLD = jnp.ones_like(total), jnp.zeros_like(hidden_BLD)
        grads, slope_nLD = pull((one, none_BLD)) if n else (jax.tree.map(jnp.zeros_like, params), None)
        found, others = (grads, none_BLD if learns else None), {}
        for term in terms:

            def yes(term=term, found=found, carry=carry):
                new, shown = term.find(params, batch, key, step, carry, Clean(hidden_BLD, slope_nLD))
                more = found[1] if new[1] is None else found[1] + new[1].astype(hidden_BLD.dtype)
                return (add(found[0], new[0]), more), shown

            found, shown = when(term.active(step), yes, lambda found=found: (found, Sums.zero()))
            others |= {term.shows: shown} if term.shows else {}
            carry = term.follow(params, carry)
        grads, asked_BLD = found
        if learns or not n:
            grads = add(grads, pull((jnp.zeros_like(total) if n else one, asked_BLD if learns else none_BLD))[0])
        return grads, Sums(total, jnp.sum(batch.weights), others), carry

    kept = {name: value for term in terms for name, value in term.keeps.items()}
    return base._replace(gradients=gradients, others=names, **kept)


def perturbed(point: Callable, learns: bool = False, held: bool = False):
    """Copies of the attacked rows moved to `point(attack, params, part, key, noise_key, clean_nLD, slope_nLD)`."""

    def find(attack: Attack, params, batch, key, step, carry, clean: Clean):
        cfg, n = attack.cfg, attack.rows.count(len(batch.tokens))
        part, clean_nLD, slope_nLD = attack.rows.take((batch, clean.hidden_BLD, clean.slope_nLD), n)
        weight, shown = cfg.weight / cfg.examples, Sums.zero()
        grads = jax.tree.map(jnp.zeros_like, (params, clean_nLD) if learns else (params,))
        for noise_key in attack.copies(key):
            delta_nLD = point(attack, params, part, key, noise_key, clean_nLD, slope_nLD)
            if cfg.loss == "ce":
                more, _, losses_nL, _ = attack.everything(params, part, key, delta_nLD, part.weights * weight)
                more = (more,)
            else:
                how = part, key, delta_nLD, weight, learns, held
                made = jax.grad(attack.apart, (0, 1) if learns else (0,), has_aux=True)
                more, losses_nL = made(params, clean_nLD, *how)
            grads, shown = add(grads, more), shown + sums(losses_nL, part.weights)
        return (grads[0], spread(grads[1], n, len(batch.tokens)) if learns else None), shown

    return find


def fgm_point(attack: Attack, params, part, key, noise_key, clean_nLD, slope_nLD):
    """One step along the gradient that the clean backward pass gave for nothing."""
    return attack.moved(params, attack.noise(params, part, noise_key), slope_nLD, part)


def vat_point(attack: Attack, params, part, key, noise_key, clean_nLD, _):
    """u <- steepest(gradient of the divergence at probe * size * u), K times from a random u; then d = size * u."""
    size = attack.size(params, part)

    def one(unit_nLD):
        delta_nLD = attack.cfg.probe * size * unit_nLD
        return attack.along(jax.grad(lambda d: attack.apart(params, clean_nLD, part, key, d)[0])(delta_nLD), part)

    return size * repeat(attack.cfg.steps, one, attack.along(attack.noise(params, part, noise_key), part))


def smart_point(attack: Attack, params, part, key, noise_key, clean_nLD, _):
    """Steps of projected ascent on the divergence, from noise."""

    def one(delta_nLD):
        slope_nLD = jax.grad(lambda d: attack.apart(params, clean_nLD, part, key, d)[0])(delta_nLD)
        return attack.moved(params, delta_nLD, slope_nLD, part)

    return repeat(attack.cfg.steps, one, attack.start(params, part, noise_key))


def noise_point(attack: Attack, params, part, key, noise_key, *_):
    """Noise alone."""
    return attack.noise(params, part, noise_key)


POINTS = {
    "fgm": perturbed(fgm_point),
    "vat": perturbed(vat_point),
    "r3f": perturbed(noise_point, learns=True, held=True),
    "smart": perturbed(smart_point, learns=True),
}


def proximity(attack: Attack, params, batch, key, step, carry, clean: Clean):
    """w symKL(now, before): `before` is what a running average of the parameters predicts (Jiang et al. 2020)."""

    def hidden(hidden_BLD, table_VD, _):
        return 0.0, (hidden_BLD, table_VD)

    before = attack.base.loss(carry["before"], batch, key, None, hidden, priced=False)[1]

    def apart(params, now_BLD):
        arrays = batch.targets, batch.weights * attack.cfg.proximity
        of, table_VD = partial(losses.divergence, "sym_kl"), attack.base.table(params)
        return tiled(of, (now_BLD,), table_VD, (before,), arrays, attack.tile_tokens)[0]

    return jax.grad(apart, (0, 1))(params, clean.hidden_BLD), Sums.zero()


def average(attack: Attack) -> Callable:
    """The running average of the parameters, moved once a microbatch so that a step moves it as it should."""
    momentum = attack.cfg.momentum ** (1 / attack.config.train.microbatches)

    def follow(params, carry):
        moved = jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, carry["before"], params)
        return {"before": moved}

    return follow


def rdrop(attack: Attack, params, batch, key, step, carry, clean: Clean):
    """A second pass with other dropout masks; with the clean one R-Drop's (CE + CE') / 2 + w/2 symKL."""

    def apart(params, clean_BLD):
        table_VD, of = attack.base.table(params), partial(losses.rdrop, attack.cfg.rdrop)

        def head(other_BLD, _, batch):
            arrays = batch.targets, batch.weights
            return tiled(of, (other_BLD, clean_BLD), table_VD, (), arrays, attack.tile_tokens)

        return attack.base.loss(params, batch, jax.random.fold_in(key, 3), None, head, priced=False)[0]

    return jax.grad(apart, (0, 1))(params, clean.hidden_BLD), Sums.zero()


def copies(attack: Attack, params, batch, key, step, carry, clean: Clean):
    """Corrupted copies of some rows, with their labels."""
    cfg, rows = attack.config.corruption, Rows(attack.config, attack.config.corruption.copies)
    part, slope_nLD = rows.take((batch, clean.slope_nLD), rows.count(len(batch.tokens)))
    score = corruption.scored(attack.base.embedding(params), slope_nLD) if cfg.slopes else None
    made = corruption.replaced(attack.config, part, key, step, score)
    zeros_nLD = jnp.zeros((*part.tokens.shape, attack.config.model.d_model))
    grads, _, losses_nL, _ = attack.everything(params, made, key, zeros_nLD, part.weights * cfg.weight)
    return (grads, None), sums(losses_nL, part.weights)


def of(attack: Attack) -> list[Term]:
    """The terms that a config names."""
    cfg, noisy, found = attack.cfg, attack.config.corruption, []

    def term(find, active=attack.active, **rest):
        found.append(Term(partial(find, attack), active, **rest))

    if cfg.method in POINTS and cfg.radius:
        slopes = {"slopes": attack.rows.count} if cfg.method == "fgm" else {}
        term(POINTS[cfg.method], shows="loss_attacked", learns=cfg.method in ("r3f", "smart"), **slopes)
    if cfg.rdrop:
        term(rdrop, learns=True)
    if cfg.proximity:
        init, axes = (lambda params: {"before": jax.tree.map(jnp.copy, params)}), {"before": attack.axes}
        term(proximity, learns=True, follow=average(attack), keeps={"init": init, "carry_axes": axes})
    if noisy.share and noisy.copies:
        slopes = {"slopes": Rows(attack.config, noisy.copies).count} if noisy.slopes else {}
        term(copies, lambda step: True, shows="loss_corrupted", **slopes)
    return found
