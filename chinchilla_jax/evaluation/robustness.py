"""The loss under attack: how much a perturbation of the embeddings that nobody would see can do.

A radius rho bounds the L2 norm of each token's perturbation by rho times the mean norm of the embedding table's rows.
Padding and control pieces are never touched, and documents of a row do not see each other's. For each radius:

rand       a point drawn uniformly from the sphere: what a plain check of robustness would try, and hardly a test
fgm        one step of length rho from 0 along the gradient, which lands on the sphere (Miyato et al. 2017)
pgd-K      K projected steps of 2.5 rho / K along the normalised gradient (Madry et al. 2018), from `restarts` places:
           the FGM point, the point of `rand`, then further points of the sphere. The worst loss met on the way is kept
           for each row, so pgd-K is nowhere below fgm, and from two restarts on nowhere below rand.

What nothing forces is fgm >= rand and pgd-20 >= pgd-5. Where either fails the gradient points nowhere useful (it is
masked), and a small loss under attack proves nothing. The attack runs in float32 with full products whatever the model
was trained in: a gradient that underflows looks like robustness.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ModelConfig, ObjectiveConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.dense import cross_entropy, tile_size
from chinchilla_jax.objectives.perturb import allowed, mean_norm, project, steepest
from chinchilla_jax.parallel.sharding import constrain
from chinchilla_jax.types import Batch

STEPS = (5, 20)
RESTARTS = 2
OVERSHOOT = 2.5  # the steps of pgd-K together, in radii, so that any point of the ball is within reach
NORM = "l2_token"
TOLERANCE = 1e-5  # of a loss: two attacks that differ by less have done the same


def exact(cfg: ModelConfig) -> ModelConfig:
    """`cfg` in float32; a card's fused attention knows none, so there it is the reference."""
    kernels = "reference" if cfg.kernels == "cuda" and cfg.positions == "rope" else cfg.kernels
    return dataclasses.replace(cfg, dtype="float32", kernels=kernels, dropout=0.0)


def slope(params, batch: Batch, delta_BLD: jax.Array, cfg: ModelConfig):
    """Gradient of the summed loss in delta (B, L, D), and the loss of each row (B,) in nats.

    The loss of a token is the gradient in its weight, so both come from one pass; no parameter's gradient is formed.
    """

    def total(delta_BLD, weights_BL):
        hidden_BLD = transformer.apply(params, batch, cfg, delta_BLD=delta_BLD)
        table_VD, tile = transformer.unembedding(params), tile_size(cfg, ObjectiveConfig())
        return cross_entropy(hidden_BLD, table_VD, batch.targets, weights_BL, 0.0, tile)

    slope_BLD, losses_BL = jax.grad(total, argnums=(0, 1))(delta_BLD, batch.weights)
    return slope_BLD, constrain(jnp.sum(batch.weights * losses_BL, axis=1), None)


@partial(jax.jit, static_argnames=("cfg", "special"))
def ascend(params, batch: Batch, delta_BLD, size, stride, steps, *, cfg: ModelConfig, special: tuple[int, ...]):
    """`steps` steps of length `stride` in the ball of radius `size`: delta, its loss, and the worst loss met (B,).

    All three numbers are traced: one compiled program does every attack at every radius.
    """
    allowed_BL1 = allowed(batch, special)

    def step(_, carry):
        delta_BLD, worst_B = carry
        slope_BLD, losses_B = slope(params, batch, delta_BLD, cfg)
        delta_BLD += stride * steepest(slope_BLD, batch.segments, NORM)
        delta_BLD = constrain(project(delta_BLD, batch.segments, size, NORM) * allowed_BL1, "batch", None, None)
        return delta_BLD, jnp.maximum(worst_B, losses_B)

    start = delta_BLD * allowed_BL1, jnp.full(batch.tokens.shape[0], -jnp.inf)
    delta_BLD, worst_B = jax.lax.fori_loop(0, steps, step, start)
    losses_B = slope(params, batch, delta_BLD, cfg)[1]
    return delta_BLD, losses_B, jnp.maximum(worst_B, losses_B)


@partial(jax.jit, static_argnames="width")
def sphere(key: jax.Array, first: jax.Array, batch: Batch, width: int) -> jax.Array:
    """Uniform points of every token's unit sphere, (B, L, D); those of a row depend on its number alone."""
    numbers_B = first + jnp.arange(batch.tokens.shape[0])
    draw = jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (batch.tokens.shape[1], width)))
    return constrain(steepest(draw(numbers_B), batch.segments, NORM), "batch", None, None)


def attacked(move: Callable, batch: Batch, size: float, points: Sequence, steps, restarts: int) -> dict[str, Any]:
    """Losses (B,) of one batch under every attack at one radius; `points` lie on the unit sphere."""

    def losses(*start) -> tuple[jax.Array, np.ndarray, np.ndarray]:
        """An attack, waited for: many restarts would otherwise queue more programs than XLA:CPU bears."""
        delta_BLD, last_B, worst_B = move(batch, *start)
        return delta_BLD, np.asarray(last_B, np.float64), np.asarray(worst_B, np.float64)

    fgm_BLD, fgm_B, _ = losses(jnp.zeros_like(points[0]), size, size, 1)
    found = {"rand": losses(size * points[0], size, 0.0, 0)[1], "fgm": fgm_B}
    starts = [fgm_BLD, *(size * point for point in points)][:restarts]
    for count in steps:
        found[f"pgd{count}"] = np.max([losses(at, size, OVERSHOOT * size / count, count)[2] for at in starts], axis=0)
    return found


def attack_report(
    params: Any,
    cfg_model: ModelConfig,
    batches: Iterable[Batch],
    radii: Sequence[float],
    key: jax.Array,
    *,
    steps: Sequence[int] = STEPS,
    restarts: int = RESTARTS,
    special: tuple[int, ...] = (0, 1, 2, 3),
    poll: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Mean losses in nats per token: {"clean": x, "rand": {rho: x}, "fgm": {...}, "pgd5": {...}, ..., "area": x}.

    `area` is the mean over the radii of (PGD with the most steps - clean), the one number to rank by. Beside it:
    `unit`, the mean row norm, and `absolute`, the radii in that unit; `ordered`, whether the attacks of a radius come
    out in order; `tokens`, what the means are over. The batches have one shape and lie where `params` do (on a mesh,
    call it under `jax.set_mesh`); `cfg_model` has no "auto" left; `special` are ids that are never perturbed; `poll()`
    is called after every radius of every batch.
    """
    radii = tuple(dict.fromkeys(radii))
    cfg, unit = exact(cfg_model), cfg_model.embed_scale * float(mean_norm(transformer.embedding(params)))
    move = partial(ascend, params, cfg=cfg, special=special)
    sums, clean, tokens, rows = {rho: {} for rho in radii}, 0.0, 0.0, 0
    with jax.default_matmul_precision("highest"):
        for batch in batches:
            keys = [jax.random.fold_in(key, number) for number in range(max(1, restarts - 1))]
            points = [sphere(each, rows, batch, cfg.d_model) for each in keys]
            rows += batch.tokens.shape[0]
            clean += np.asarray(move(batch, jnp.zeros_like(points[0]), 0.0, 0.0, 0)[1], np.float64).sum()
            tokens += float(jnp.sum(batch.weights))
            for rho in radii:
                for name, losses in attacked(move, batch, rho * unit, points, steps, restarts).items():
                    sums[rho][name] = sums[rho].get(name, 0.0) + losses.sum()
                poll()
    names = ["rand", "fgm", *(f"pgd{count}" for count in steps)]
    found = {name: {rho: float(sums[rho][name] / tokens) for rho in radii} for name in names}
    clean = float(clean / tokens)
    strongest = found[f"pgd{max(steps)}"]
    return {
        "clean": clean,
        **found,
        "area": float(np.mean([loss - clean for loss in strongest.values()])),
        "unit": unit,
        "absolute": {rho: rho * unit for rho in radii},
        "ordered": {rho: ordered([found[name][rho] for name in names]) for rho in radii},
        "tokens": int(tokens),
    }


def ordered(losses: Sequence[float]) -> bool:
    """Whether each attack does at least what the one before it did."""
    return all(b >= a - TOLERANCE * abs(a) for a, b in pairwise(losses))
