"""The loss under attack: how much a perturbation of the embeddings that nobody would see can do.

A radius rho bounds the L2 norm of each token's perturbation by rho times the norm of the token's own embedding.
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
import functools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ModelConfig, ObjectiveConfig
from chinchilla_jax.evaluation import judged
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives import perturb
from chinchilla_jax.objectives.dense import cross_entropy
from chinchilla_jax.objectives.perturb import allowed, project, steepest
from chinchilla_jax.parallel.sharding import constrain
from chinchilla_jax.parallel.tiles import tile_size
from chinchilla_jax.types import Batch

STEPS = (5, 20)
RESTARTS = 2
OVERSHOOT = 2.5  # the steps of pgd-K together, in radii, so that any point of the ball is within reach
NORM = "l2_token"
TOLERANCE = 1e-5  # of a loss: two attacks that differ by less have done the same


def exact(cfg: ModelConfig) -> ModelConfig:
    """`cfg` in float32; a card's fused attention knows none, so there it is the reference.

    Layers are not unrolled: XLA:CPU would keep all of their weights in a second layout, on each of several devices.
    """
    kernels = "reference" if cfg.kernels == "cuda" and cfg.positions == "rope" else cfg.kernels
    return dataclasses.replace(cfg, dtype="float32", kernels=kernels, dropout=0.0, scan_unroll=1)


@dataclasses.dataclass(frozen=True)
class Aim:
    """What an attack raises: `loss(params, batch, delta_BLD)`, a sum that is linear in the weights of the tokens.

    The worst point is kept for every row, or for every document where these stand `apart`, since none sees another.
    """

    loss: Callable[[Any, Batch, jax.Array], jax.Array]
    apart: bool = False

    def kept(self, losses_BL: jax.Array, batch: Batch) -> jax.Array:
        """The loss of what each token is kept with: (B, L)."""
        if self.apart:
            return perturb.shared(losses_BL, batch.segments, "l2_sequence")
        return jnp.broadcast_to(jnp.sum(losses_BL, axis=1, keepdims=True), losses_BL.shape)


@functools.lru_cache
def language(cfg: ModelConfig) -> Aim:
    """The cross-entropy of every token."""

    def loss(params, batch: Batch, delta_BLD):
        hidden_BLD = transformer.apply(params, batch, cfg, delta_BLD=delta_BLD)
        table_VD, tile = transformer.unembedding(params), tile_size(cfg, ObjectiveConfig())
        return cross_entropy(hidden_BLD, table_VD, batch.targets, batch.weights, 0.0, tile)

    return Aim(loss)


def slope(params, batch: Batch, delta_BLD: jax.Array, aim: Aim):
    """Gradient of the summed loss in delta (B, L, D), and in nats the loss of each token's row or document (B, L).

    The loss of a token is the gradient in its weight, so both come from one pass; no parameter's gradient is formed.
    """

    def total(delta_BLD, weights_BL):
        return aim.loss(params, dataclasses.replace(batch, weights=weights_BL), delta_BLD)

    slope_BLD, losses_BL = jax.grad(total, argnums=(0, 1))(delta_BLD, batch.weights)
    return slope_BLD, constrain(aim.kept(batch.weights * losses_BL, batch), None, None)


@partial(jax.jit, static_argnames=("aim", "special"))
def ascend(params, batch: Batch, delta_BLD, size, stride, steps, *, aim: Aim, special: tuple[int, ...]):
    """`steps` steps of length `stride` in the ball of radius `size`: delta, its loss, the worst met (B, L), and where.

    All three numbers are traced, the lengths for all tokens or of each (B, L, 1): one compiled program does every
    attack at every radius.
    """
    allowed_BL1 = allowed(batch, special)

    def met(delta_BLD, losses_BL, worst_BL, worst_BLD):
        more_BL = losses_BL > worst_BL
        return jnp.where(more_BL, losses_BL, worst_BL), jnp.where(more_BL[..., None], delta_BLD, worst_BLD)

    def step(_, carry):
        delta_BLD, *worst = carry
        slope_BLD, losses_BL = slope(params, batch, delta_BLD, aim)
        worst = met(delta_BLD, losses_BL, *worst)
        delta_BLD += stride * steepest(slope_BLD, batch.segments, NORM)
        delta_BLD = constrain(project(delta_BLD, batch.segments, size, NORM) * allowed_BL1, "batch", None, None)
        return delta_BLD, *worst

    start = delta_BLD * allowed_BL1, jnp.full(batch.tokens.shape, -jnp.inf), jnp.zeros_like(delta_BLD)
    delta_BLD, *worst = jax.lax.fori_loop(0, steps, step, start)
    losses_BL = slope(params, batch, delta_BLD, aim)[1]
    return delta_BLD, losses_BL, *met(delta_BLD, losses_BL, *worst)


@partial(jax.jit, static_argnames="width")
def sphere(key: jax.Array, first: jax.Array, batch: Batch, width: int) -> jax.Array:
    """Uniform points of every token's unit sphere, (B, L, D); those of a row depend on its number alone."""
    numbers_B = first + jnp.arange(batch.tokens.shape[0])
    draw = jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (batch.tokens.shape[1], width)))
    return constrain(steepest(draw(numbers_B), batch.segments, NORM), "batch", None, None)


def attacked(move: Callable, batch: Batch, size, points: Sequence, steps, restarts: int) -> dict[str, Any]:
    """Where every attack at one radius (B, L, 1) gets to, (B, L, D); `points` lie on the unit sphere."""

    def run(*start) -> tuple[jax.Array, np.ndarray, jax.Array]:
        """An attack, waited for: many restarts would otherwise queue more programs than XLA:CPU bears."""
        delta_BLD, _, worst_BL, worst_BLD = move(batch, *start)
        return delta_BLD, np.asarray(worst_BL, np.float64), worst_BLD

    fgm_BLD = run(jnp.zeros_like(points[0]), size, size, 1)[0]
    found = {"rand": run(size * points[0], size, 0.0, 0)[0], "fgm": fgm_BLD}
    starts = [fgm_BLD, *(size * point for point in points)][:restarts]
    for count in steps:
        _, most_BL, best_BLD = run(starts[0], size, OVERSHOOT * size / count, count)
        for at in starts[1:]:
            _, worst_BL, worst_BLD = run(at, size, OVERSHOOT * size / count, count)
            best_BLD = jnp.where((worst_BL > most_BL)[..., None], worst_BLD, best_BLD)
            most_BL = np.maximum(worst_BL, most_BL)
        found[f"pgd{count}"] = best_BLD
    return found


def attack_report(
    params: Any,
    cfg_model: ModelConfig,
    batches: Iterable[Batch],
    radii: Sequence[float],
    key: jax.Array,
    *,
    log_unigram: np.ndarray,
    temperature: float = 1.0,
    steps: Sequence[int] = STEPS,
    restarts: int = RESTARTS,
    special: tuple[int, ...] = (0, 1, 2, 3),
    poll: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Mean losses in nats per token: {"clean": x, "rand": {rho: x}, "fgm": {...}, "pgd5": {...}, ..., "area": x}.

    `rows`: for each of `judged.ROWS` the (mean, standard error) of each of `judged.FIGURES`, by attack and radius.
    `area` is the mean over the radii of (PGD with the most steps - clean). Beside it: `unit`, the mean norm of the
    embeddings of the tokens attacked, and `absolute`, the radii in that unit; `ordered`, whether the attacks of a
    radius come out in order; `tokens`, what the means are over. The batches have one shape and lie where `params` do
    (on a mesh, call it under `jax.set_mesh`); `cfg_model` has no "auto" left; `special` are ids that are never
    perturbed; `poll()` is called after every radius of every batch.
    """
    radii = tuple(dict.fromkeys(radii))
    cfg = exact(cfg_model)
    move = partial(ascend, params, aim=language(cfg), special=special)
    sums: dict[tuple, list] = {}
    weights, lengths, rows = [], [], 0

    def judge(batch, delta_BLD, *name):
        found = judged.judge(params, batch, delta_BLD, log_unigram, temperature, cfg=cfg)
        sums.setdefault(name, []).append(np.asarray(found, np.float64))

    with jax.default_matmul_precision("highest"):
        for batch in batches:
            keys = [jax.random.fold_in(key, number) for number in range(max(1, restarts - 1))]
            points = [sphere(each, rows, batch, cfg.d_model) for each in keys]
            rows += batch.tokens.shape[0]
            unit_BL1, length = units(params, batch, cfg, special)
            judge(batch, jnp.zeros_like(points[0]), "clean")
            weights.append(np.asarray(jnp.sum(batch.weights, axis=1), np.float64))
            lengths.append(np.asarray(length, np.float64))
            for rho in radii:
                for name, delta_BLD in attacked(move, batch, rho * unit_BL1, points, steps, restarts).items():
                    judge(batch, delta_BLD, name, rho)
                poll()
    unit = float(np.sum(lengths, axis=0)[0] / np.sum(lengths, axis=0)[1])
    return figures(sums, np.concatenate(weights), radii, [f"pgd{count}" for count in steps], unit)


@partial(jax.jit, static_argnames=("cfg", "special"))
def units(params, batch: Batch, cfg: ModelConfig, special: tuple[int, ...]):
    """|e_t| (B, L, 1), and its sum and count over the tokens that may be perturbed."""
    unit_BL1 = cfg.embed_scale * perturb.unit("token", transformer.embedding(params), batch)
    allowed_BL1 = allowed(batch, special)
    total = constrain(jnp.stack([jnp.sum(unit_BL1 * allowed_BL1), jnp.sum(allowed_BL1)]), None)
    return constrain(unit_BL1, "batch", None, None), total


def figures(sums: dict, weights_B: np.ndarray, radii: tuple, strong: list[str], unit: float) -> dict[str, Any]:
    """The report from the sums of every row under every attack."""
    names = ["rand", "fgm", *strong]

    def of(row: int, *name) -> dict[str, tuple[float, float]]:
        found = np.concatenate(sums[name])[:, row]
        return {figure: judged.mean_and_error(found[:, at], weights_B) for at, figure in enumerate(judged.FIGURES)}

    rows = {
        row: {"clean": of(at, "clean"), **{name: {rho: of(at, name, rho) for rho in radii} for name in names}}
        for at, row in enumerate(judged.ROWS)
    }
    plain = rows["plain"]
    clean = plain["clean"]["loss"][0]
    found = {name: {rho: plain[name][rho]["loss"][0] for rho in radii} for name in names}
    return {
        "clean": clean,
        **found,
        "area": float(np.mean([loss - clean for loss in found[strong[-1]].values()])),
        "unit": unit,
        "absolute": {rho: rho * unit for rho in radii},
        "ordered": {rho: ordered([found[name][rho] for name in names]) for rho in radii},
        "tokens": int(weights_B.sum()),
        "rows": rows,
    }


def ordered(losses: Sequence[float]) -> bool:
    """Whether each attack does at least what the one before it did."""
    return all(b >= a - TOLERANCE * abs(a) for a, b in pairwise(losses))
