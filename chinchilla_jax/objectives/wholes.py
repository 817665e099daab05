"""Adversarial methods whose clean and perturbed parts cannot be told apart: FreeLB, R3F, SMART, the softmax margin."""

import dataclasses

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives.attack import Attack, add, repeat, sums, when
from chinchilla_jax.objectives.divergence import divergence
from chinchilla_jax.objectives.margin import margin_cross_entropy
from chinchilla_jax.types import Sums


def freelb(attack: Attack):
    """The first pass takes all rows, the attacked ones at the start; the others take the attacked ones alone."""
    steps, weight = attack.cfg.steps, attack.cfg.weight / attack.cfg.steps

    def gradients(params, batch, key, step, carry):
        n, active = attack.rows(batch), attack.active(step)
        part = attack.take(batch, n)
        start_nLD = attack.start(params, part, attack.copies(key)[0]) * active
        delta_BLD = attack.spread(start_nLD, n, len(batch.tokens))
        weights_BL = batch.weights * attack.share(batch, active, weight)
        grads, g_BLD, losses_BL, _ = attack.everything(params, batch, key, delta_BLD, weights_BL)

        def one(state):
            grads, delta_nLD, g_nLD, _ = state
            delta_nLD = attack.moved(params, delta_nLD, g_nLD, part)
            more, g_nLD, losses_nL, _ = attack.everything(params, part, key, delta_nLD, part.weights * weight)
            return add(grads, more), delta_nLD, g_nLD, sums(losses_nL, part.weights)

        def ascended():
            grads_there, _, _, last = repeat(steps - 1, one, (grads, start_nLD, attack.take(g_BLD, n), Sums.zero()))
            return grads_there, last

        grads, other = when(active, ascended, lambda: (grads, Sums.zero()))
        clean = sums(losses_BL, batch.weights)
        return grads, Sums(clean.loss, clean.weight, {"loss_attacked": other}), carry

    return gradients


def r3f(attack: Attack):
    """Clean and noisy branch in one differentiation, since both of them learn from their divergence."""

    def apart(params, part, key, delta_nLD, clean_nLD):
        """The weighted divergence of the two branches, the noisy one looking up in a table that is held fast."""
        table_VD = attack.base.table(params)
        weights_nL = part.weights * (attack.cfg.weight / attack.cfg.examples)

        def head(noisy_nLD, _, part):
            arrays = noisy_nLD, clean_nLD, table_VD, part.targets, weights_nL
            return divergence(*arrays, attack.cfg.loss, True, attack.tile_tokens)

        return attack.base.loss(params, part, key, delta_nLD, head, priced=False, held=True)

    def gradients(params, batch, key, step, carry):
        n = attack.rows(batch)

        def loss(params, deltas):
            clean, hidden_BLD = attack.base.loss(params, batch, key)
            total, other = clean, Sums.zero()
            for delta_nLD in deltas:
                part, clean_nLD = attack.take((batch, hidden_BLD), n)
                more, losses_nL = apart(params, part, key, delta_nLD, clean_nLD)
                total, other = total + more, other + sums(losses_nL, part.weights)
            return total, (clean, other)

        def noisy():
            part = attack.take(batch, n)
            return jax.grad(loss, has_aux=True)(params, [attack.noise(params, part, k) for k in attack.copies(key)])

        grads, (clean, other) = when(attack.active(step), noisy, lambda: jax.grad(loss, has_aux=True)(params, []))
        return grads, Sums(clean, jnp.sum(batch.weights), {"loss_attacked": other}), carry

    return gradients


def smart(attack: Attack):
    """CE + weight symKL(clean, ascended) + proximity symKL(now, before): smoothness and a trust region in one step.

    The ascent starts from noise and climbs the divergence; both branches learn. `before` is the prediction of the
    parameters' own running average, so that the term is a Bregman divergence between two models (Jiang et al. 2020).
    """
    cfg, momentum = attack.cfg, attack.cfg.momentum ** (1 / attack.config.train.microbatches)  # moves in every part

    def gradients(params, batch, key, step, carry):
        n, before = attack.rows(batch), carry["before"]

        def clean(params):
            return attack.base.loss(params, batch, key)

        (loss, clean_BLD), pull = jax.vjp(clean, params)

        def attacked():
            part, clean_nLD = attack.take((batch, clean_BLD), n)
            grads, dclean_nLD = jax.tree.map(jnp.zeros_like, (params, clean_nLD))
            made, other = jax.grad(_apart, argnums=(1, 2), has_aux=True), Sums.zero()
            for noise_key in attack.copies(key):
                delta_nLD = _climbed(attack, params, clean_nLD, part, key, noise_key)
                weight = cfg.weight / cfg.examples
                more, losses_nL = made(attack, params, clean_nLD, part, key, delta_nLD, True, weight)
                (grads, dclean_nLD), other = add((grads, dclean_nLD), more), other + sums(losses_nL, part.weights)
            more, dnow_BLD = jax.grad(_proximity, argnums=(1, 2))(attack, params, clean_BLD, before, batch, key)
            return add(grads, more), dnow_BLD + attack.spread(dclean_nLD, n, len(batch.tokens)), other

        zeros = jax.tree.map(jnp.zeros_like, (params, clean_BLD))
        grads, dclean_BLD, other = when(attack.active(step), attacked, lambda: (*zeros, Sums.zero()))
        grads = add(grads, pull((jnp.ones_like(loss), dclean_BLD.astype(clean_BLD.dtype)))[0])
        before = jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, before, params)
        return grads, Sums(loss, jnp.sum(batch.weights), {"loss_attacked": other}), {"before": before}

    return gradients


def _apart(attack: Attack, params, clean_nLD, part, key, delta_nLD, both: bool, weight: float):
    """The weighted divergence of the clean and the perturbed branch; with `both`, the clean one learns as well."""

    def head(moved_nLD, table_VD, part):
        arrays = moved_nLD, clean_nLD, table_VD, part.targets, part.weights * weight
        return divergence(*arrays, attack.cfg.loss, both, attack.tile_tokens)

    return attack.base.loss(params, part, key, delta_nLD, head, priced=False)


def _climbed(attack: Attack, params, clean_nLD, part, key, noise_key):
    """Steps of projected ascent on the divergence, from noise."""

    def one(delta_nLD):
        g_nLD = jax.grad(lambda d: _apart(attack, params, clean_nLD, part, key, d, False, 1.0)[0])(delta_nLD)
        return attack.moved(params, delta_nLD, g_nLD, part)

    return repeat(attack.cfg.steps, one, attack.start(params, part, noise_key))


def _proximity(attack: Attack, params, now_BLD, before, batch, key):
    """The divergence from what `before` predicts; two predictions with a table each are one, laid side by side."""

    def hidden(hidden_BLD, table_VD, _):
        return 0.0, (hidden_BLD, table_VD)

    before_BLD, before_VD = attack.base.loss(before, batch, key, None, hidden, priced=False)[1]
    zeros_BLD, table_VD = jnp.zeros_like(now_BLD), attack.base.table(params)
    y_BLE, x_BLE = jnp.concatenate([now_BLD, zeros_BLD], -1), jnp.concatenate([zeros_BLD, before_BLD], -1)
    both_VE = jnp.concatenate([table_VD, before_VD.astype(table_VD.dtype)], -1)
    arrays = y_BLE, x_BLE, both_VE, batch.targets, batch.weights * attack.cfg.proximity
    return divergence(*arrays, "sym_kl", False, attack.tile_tokens)[0]


def average_before(attack: Attack) -> dict:
    """What `smart` keeps: the running average of what trains."""
    return {
        "init": lambda params: {"before": jax.tree.map(jnp.copy, params)},
        "carry_axes": {"before": attack.axes},
    }


def softmax_margin(attack: Attack):
    """The target's logit lowered in the attacked rows, in the loss of the ordinary pass."""
    z_loss = attack.config.objective.z_loss

    def gradients(params, batch, key, step, carry):
        active = attack.active(step)
        hit_BL = attack.hit(batch) * active * batch.weights
        weighted = dataclasses.replace(batch, weights=batch.weights * attack.share(batch, active, attack.cfg.weight))

        def head(hidden_BLD, table_VD, batch):
            length_V = jax.lax.stop_gradient(jnp.linalg.norm(table_VD.astype(jnp.float32), axis=-1))
            margin_BL = attack.cfg.radius * length_V[batch.targets] * (hit_BL > 0)
            arrays = hidden_BLD, table_VD, batch.targets, batch.weights, margin_BL
            return margin_cross_entropy(*arrays, z_loss, attack.tile_tokens)

        def loss(params):
            return attack.base.loss(params, weighted, key, None, head)

        grads, (losses_BL, plain_BL) = jax.grad(loss, has_aux=True)(params)
        clean = sums(plain_BL, batch.weights)
        return grads, Sums(clean.loss, clean.weight, {"loss_attacked": sums(losses_BL, hit_BL)}), carry

    return gradients
