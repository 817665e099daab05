"""Methods that alter the main pass, so that only one of them can be. Notation and Sums as in terms.py.

pgd      CE(e + d) / W: K projected steps from a random start, and only the last point trains, in place of the clean
         row (Madry et al. 2018). Costs 1 + 2/3 K fraction.
noise    CE(e + z) / W, in place (NEFTune, Jain et al. 2024, with norm l2_sequence). Costs 1.
freelb   mean over K of CE(e + d_t) / W: every point of the ascent trains, the last step does not move d (Zhu et al.
         2020). Costs 1 + (K - 1) fraction.
softmax_margin   in closed form on the output side; see losses.py. Costs 1.

No clean pass is made of attacked rows: `loss` takes them at the start of the ascent (pgd, freelb: clean from zeros) or
as they are (noise).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives import losses
from chinchilla_jax.objectives.attack import Attack
from chinchilla_jax.objectives.losses import tiled
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.objectives.rows import add, nothing, repeat, spread, sums, when
from chinchilla_jax.types import Sums


def trained(attack: Attack, params, part, key, delta_nLD, weight: float):
    """Gradients of the weighted loss of perturbed rows, and the Sums of their cross-entropy."""
    grads, _, losses_nL, _ = attack.everything(params, part, key, delta_nLD, part.weights * weight)
    return grads, sums(losses_nL, part.weights)


def in_place(find):
    """The attacked rows train perturbed and not clean; `find(attack, params, part, key, noise_key)` says where.

    Further examples of a row are passes of their own.
    """

    def method(attack: Attack):
        weight = attack.cfg.weight / attack.cfg.examples

        def gradients(params, batch, key, step, carry):
            n, active, keys = attack.rows.count(len(batch.tokens)), attack.active(step), attack.copies(key)
            part = attack.rows.take(batch, n)

            def point(noise_key):
                return find(attack, params, part, key, noise_key)

            def one(noise_key):
                return trained(attack, params, part, key, point(noise_key)[0], weight)

            delta_nLD, start = when(active, lambda: point(keys[0]), lambda: nothing(point, keys[0]))
            weights_BL = batch.weights * attack.share(batch, active, weight)
            delta_BLD = spread(delta_nLD, n, len(batch.tokens))
            grads, _, losses_BL, _ = attack.everything(params, batch, key, delta_BLD, weights_BL)
            hit, rest = (sums(losses_BL[rows], batch.weights[rows]) for rows in (slice(n), slice(n, None)))
            clean = rest.loss + (hit.loss if start is None else jnp.where(active, start, hit.loss))
            other = jax.tree.map(lambda x: jnp.where(active, x, 0.0), hit)
            for noise_key in keys[1:]:
                more = when(active, lambda k=noise_key: one(k), lambda k=noise_key: nothing(one, k))
                grads, other = add((grads, other), more)
            return grads, Sums(clean, hit.weight + rest.weight, {"loss_attacked": other}), carry

        return gradients

    return method


def pgd_point(attack: Attack, params, part, key, noise_key):
    """K projected steps from a start, and the loss at the start."""

    def loss(delta_nLD):
        return attack.base.loss(params, part, key, delta_nLD)[0]

    def one(delta_nLD):
        return attack.moved(params, delta_nLD, jax.grad(loss)(delta_nLD), part)

    start_nLD = attack.start(params, part, noise_key)
    value, g_nLD = jax.value_and_grad(loss)(start_nLD)
    return repeat(attack.cfg.steps - 1, one, attack.moved(params, start_nLD, g_nLD, part)), value


def noise_point(attack: Attack, params, part, key, noise_key):
    """Noise alone; nobody computes the loss without it."""
    return attack.noise(params, part, noise_key), None


def freelb(attack: Attack):
    """The first pass takes all rows, the attacked ones at the start; the others take the attacked ones alone."""
    steps, weight = attack.cfg.steps, attack.cfg.weight / attack.cfg.steps

    def gradients(params, batch, key, step, carry):
        n, active = attack.rows.count(len(batch.tokens)), attack.active(step)
        part = attack.rows.take(batch, n)
        start_nLD = attack.start(params, part, attack.copies(key)[0]) * active
        delta_BLD = spread(start_nLD, n, len(batch.tokens))
        weights_BL = batch.weights * attack.share(batch, active, weight)
        grads, g_BLD, losses_BL, _ = attack.everything(params, batch, key, delta_BLD, weights_BL)

        def one(state):
            grads, delta_nLD, g_nLD, _ = state
            delta_nLD = attack.moved(params, delta_nLD, g_nLD, part)
            more, g_nLD, losses_nL, _ = attack.everything(params, part, key, delta_nLD, part.weights * weight)
            return add(grads, more), delta_nLD, g_nLD, sums(losses_nL, part.weights)

        def ascended():
            start = grads, start_nLD, attack.rows.take(g_BLD, n), Sums.zero()
            grads_there, _, _, last = repeat(steps - 1, one, start)
            return grads_there, last

        grads, other = when(active, ascended, lambda: (grads, Sums.zero()))
        clean = sums(losses_BL, batch.weights)
        return grads, Sums(clean.loss, clean.weight, {"loss_attacked": other}), carry

    return gradients


def softmax_margin(attack: Attack):
    """The target's logit lowered in the attacked rows, in the loss of the ordinary pass."""
    of = partial(losses.margin, attack.config.objective.z_loss)

    def gradients(params, batch, key, step, carry):
        active = attack.active(step)
        hit_BL = attack.hit(batch) * active * batch.weights
        weighted = dataclasses.replace(batch, weights=batch.weights * attack.share(batch, active, attack.cfg.weight))

        def head(hidden_BLD, table_VD, batch):
            length_V = jax.lax.stop_gradient(jnp.linalg.norm(table_VD.astype(jnp.float32), axis=-1))
            margin_BL = attack.cfg.radius * length_V[batch.targets] * (hit_BL > 0)
            return tiled(of, (hidden_BLD,), table_VD, (), (batch.targets, margin_BL, batch.weights), attack.tile_tokens)

        def loss(params):
            return attack.base.loss(params, weighted, key, None, head)

        grads, (losses_BL, plain_BL) = jax.grad(loss, has_aux=True)(params)
        clean = sums(plain_BL, batch.weights)
        return grads, Sums(clean.loss, clean.weight, {"loss_attacked": sums(losses_BL, hit_BL)}), carry

    return gradients


METHODS = {
    "pgd": in_place(pgd_point),
    "noise": in_place(noise_point),
    "freelb": freelb,
    "softmax_margin": softmax_margin,
}


def made(attack: Attack) -> Objective:
    """The objective of a method that stands alone."""
    return attack.base._replace(gradients=METHODS[attack.cfg.method](attack), others=("loss_attacked",))
