"""Adversarial training on the embeddings: a wrapper round the dense objective that nothing else knows of.

A perturbation d is added after the look-up, never to the tied output matrix; it is zero on padding and control pieces.
Of a microbatch the first n = fraction * B rows are attacked. With sums of cross-entropies over tokens, W the weight of
the clean tokens and w `weight` (shared by the `examples` of a row):

fgm      (CE(e) + w A(e + d)) / W, d = size * steepest(g), g from the clean pass's own backward pass (Miyato et al.
         2017); A is CE, or the divergence from the clean prediction. Costs 1 + fraction.
vat      (CE(e) + w KL(e, e + d)) / W, d along the gradient of the KL at a small random probe (Miyato et al. 2018; the
         virtual loss of ALUM, Liu et al. 2020, whose released code is another algorithm: its noise is the normalised
         direction itself, of size 1). Costs 1 + (1 + 2/3 K) fraction, and a product more in each head.
pgd      CE(e + d) / W: K projected steps from a random start, and only the last point trains, in place of the clean
         row (Madry et al. 2018). Costs 1 + 2/3 K fraction.
noise    CE(e + z) / W, in place (NEFTune, Jain et al. 2024, with norm l2_sequence). Costs 1.
freelb   mean over K of CE(e + d_t) / W: every point of the ascent trains, the last step does not move d (Zhu et al.
         2020). Costs 1 + (K - 1) fraction.
r3f      (CE(e) + w symKL(e, e + z)) / W with random z; no gradient reaches the embedding table through the noisy
         branch, and the clean one is no constant (Aghajanyan et al. 2021). Costs 1 + fraction and three products of a
         head.
smart    (CE(e) + w symKL(e, e + d) + m symKL(now, before)) / W: d climbs the divergence from noise, both branches
         learn, and `before` is what a running average of the parameters predicts, so that a step goes nowhere far
         (Jiang et al. 2020). Costs 1 + (1 + 2/3 K) fraction + 1/3.
softmax_margin   in closed form on the output side; see margin.py. Costs 1.

`loss` in the metrics is the clean loss as it is minimised, with z-loss and the price of activations (softmax_margin: no
price); `loss_attacked` is the cross-entropy of the attacked rows, with z-loss where they train on their labels. Where
no clean pass is made of these, `loss` takes them at the start of the ascent (pgd, freelb: clean from zeros) or as they
are (noise).

Before `start` and between two attacks a step computes, and costs, what the plain one does; delayed rows with a
divergence pay that always.
"""

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives import wholes
from chinchilla_jax.objectives.attack import Attack, add, nothing, repeat, sums, when
from chinchilla_jax.objectives.delayed import delayed
from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.types import Sums


def adversarial(attack: Attack) -> Objective:
    """The objective under `attack`, as its config says."""
    if attack.cfg.delayed:
        return delayed(attack)
    kept = KEEPS[attack.cfg.method](attack) if attack.cfg.method in KEEPS else {}
    return attack.base._replace(gradients=METHODS[attack.cfg.method](attack), others=("loss_attacked",), **kept)


def with_copies(find):
    """All rows train clean, and copies of some perturbed by `find(attack, params, part, key, noise_key, g, clean)`."""

    def method(attack: Attack):
        def gradients(params, batch, key, step, carry):
            n, rows = attack.rows(batch), len(batch.tokens)

            def clean(params, delta_nLD):
                return attack.base.loss(params, batch, key, attack.spread(delta_nLD, n, rows))

            zeros_nLD = jnp.zeros((n, batch.tokens.shape[1], attack.config.model.d_model))
            total, pull, hidden_BLD = jax.vjp(clean, params, zeros_nLD, has_aux=True)
            grads, g_nLD = pull(jnp.ones_like(total))

            def attacked():
                part, clean_nLD, g = attack.take((batch, hidden_BLD, g_nLD), n)
                found = grads, Sums.zero()
                for noise_key in attack.copies(key):
                    delta_nLD = find(attack, params, part, key, noise_key, g, clean_nLD)
                    found = add(found, attack.train(params, part, key, delta_nLD, clean_nLD))
                return found

            grads, other = when(attack.active(step), attacked, lambda: (grads, Sums.zero()))
            return grads, Sums(total, jnp.sum(batch.weights), {"loss_attacked": other}), carry

        return gradients

    return method


def fgm_point(attack: Attack, params, part, key, noise_key, g_nLD, clean_nLD):
    """One step along the gradient that the clean backward pass gave for nothing."""
    return attack.moved(params, attack.noise(params, part, noise_key), g_nLD, part)


def vat_point(attack: Attack, params, part, key, noise_key, g_nLD, clean_nLD):
    """u <- steepest(gradient of the divergence at probe * size * u), K times from a random u; then d = size * u."""
    size = attack.size(params)

    def one(unit_nLD):
        def loss(delta_nLD):
            return attack.apart(params, part, key, delta_nLD, clean_nLD)[0]

        return attack.along(jax.grad(loss)(attack.cfg.probe * size * unit_nLD), part)

    return size * repeat(attack.cfg.steps, one, attack.along(attack.noise(params, part, noise_key), part))


def in_place(find):
    """The attacked rows train perturbed and not clean; `find(attack, params, part, key, noise_key)` says where.

    Further examples of a row are passes of their own.
    """

    def method(attack: Attack):
        def gradients(params, batch, key, step, carry):
            n, active, keys = attack.rows(batch), attack.active(step), attack.copies(key)
            part = attack.take(batch, n)

            def point(noise_key):
                return find(attack, params, part, key, noise_key)

            def one(noise_key):
                return attack.train(params, part, key, point(noise_key)[0], None)

            delta_nLD, start = when(active, lambda: point(keys[0]), lambda: nothing(point, keys[0]))
            weights_BL = batch.weights * attack.share(batch, active, attack.cfg.weight / attack.cfg.examples)
            delta_BLD = attack.spread(delta_nLD, n, len(batch.tokens))
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


# What E examples and K ascent steps cost beside the plain step, in steps of the attacked rows alone.
COSTS = {
    "fgm": lambda E, K: E,
    "vat": lambda E, K: E * (1 + 2 / 3 * K),
    "pgd": lambda E, K: E - 1 + 2 / 3 * K * E,
    "noise": lambda E, K: E - 1,
    "freelb": lambda E, K: K - 1,
    "r3f": lambda E, K: E,
    "smart": lambda E, K: E * (1 + 2 / 3 * K),
    "softmax_margin": lambda E, K: 0,
}

OVER_ALL = {"smart": 1 / 3}  # and what they cost in steps of all rows: the forward pass of the average


def multiple(attack: Attack) -> float:
    """What a step costs over a whole run, in plain steps: COSTS, heads apart, for the rows as they fall."""
    cfg, train = attack.cfg, attack.config.train
    rows = train.batch_size // train.microbatches
    attacking = (1 - cfg.first(train.steps) / train.steps) / cfg.every
    passes = 0 if cfg.delayed else COSTS[cfg.method](cfg.examples, cfg.steps)
    over_all = OVER_ALL.get(cfg.method, 0.0)
    return 1 + attacking * (over_all + passes * attack.filled(attack.count(rows)) / rows)


METHODS = {
    "fgm": with_copies(fgm_point),
    "vat": with_copies(vat_point),
    "pgd": in_place(pgd_point),
    "noise": in_place(noise_point),
    "freelb": wholes.freelb,
    "r3f": wholes.r3f,
    "smart": wholes.smart,
    "softmax_margin": wholes.softmax_margin,
}

# What a method keeps between steps, beside its gradients: fields of `Objective`.
KEEPS = {"smart": wholes.average_before}
