"""A ladder of small runs within a budget: sizes, durations and settings that a law can be fitted to.

Everything follows from one base config, the run of the ladder's reference size. With N all parameters of a model:

    depth ~ width^0.7,  initial deviation ~ width^-1/2,  peak rate ~ N^-lr_exponent,
    warm-up = N tokens, at most a twentieth of the longest run of the size

(the warm-up after Porian et al. 2024, arXiv:2406.19146). Batch and window are the base's at every size.
Budgets are counted as 6 N D, N with the embeddings (`6ND_total`).
"""

import bisect
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from chinchilla_jax.config import Config, ModelConfig, OptimizerConfig, replace, require
from chinchilla_jax.scaling import counts

DECAY = 0.2  # share of a run that its rate decays over: matches a cosine (Haegele et al. 2024, arXiv:2405.18392)
RATIO = 2.0  # between the durations of a size
DURATIONS = 5  # of a size at most
# The longest run of size N costs ~ N^TILT: at 0 all have one budget, at 1 one duration.
TILT = 0.5
LEAST_STEPS = 500  # of a run: what a shorter one says of its size is hidden by its warm-up
WARMUP_SHARE, SHORTEST_WARMUP_SHARE = 0.05, 0.2  # of the longest and of the shortest run of a size, at most
FORK_EARLY = 1  # steps between a fork and the first step of the decay, for the rounding of the schedule


@dataclass(frozen=True)
class Run:
    """One run of a ladder. `fork` completed steps are those of its cluster's trunk; 0 where it runs on its own.

    `paid` are the steps that it adds to those of the runs before it: of a branch, a stretch of trunk and its cooldown.
    """

    run_id: str
    cluster_id: str
    config: Config
    fork: int
    paid: int

    @property
    def params(self) -> int:
        """All parameters."""
        return counts.parameters(self.config.model)

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        train = self.config.train
        return train.steps * train.batch_size * train.seq_len

    @property
    def flops(self) -> float:
        """6 N D of the steps that it adds."""
        return 6.0 * self.params * self.tokens * self.paid / self.config.train.steps


@dataclass(frozen=True)
class Ladder:
    """Runs in the order in which they are to run: clusters by size, each from short to long."""

    runs: tuple[Run, ...]

    @property
    def total_flops(self) -> float:
        """6 N D of all that is computed."""
        return sum(run.flops for run in self.runs)


def model_like(base: ModelConfig, d_model: int) -> ModelConfig:
    """The base's proportions at another width."""
    scale, unit = d_model / base.d_model, min(16, base.d_ff)
    shared = base.heads // (base.kv_heads or base.heads)  # query heads to a head of keys and values
    groups = max(1, math.ceil(base.heads / shared * scale))
    return dataclasses.replace(
        base,
        preset="",
        d_model=d_model,
        layers=max(min(2, base.layers), round(base.layers * scale**0.7)),
        heads=groups * shared,
        kv_heads=groups if base.kv_heads else 0,
        d_ff=max(unit, round(base.d_ff * scale / unit) * unit),
        init_std=float(f"{base.init_std * scale**-0.5:.4g}"),
    )


def rung(base: ModelConfig, params: float, count: Callable[[ModelConfig], float] = counts.parameters) -> ModelConfig:
    """The width, a multiple of 8 (of 32 from 256 on), whose model comes closest to `params` as `count` counts."""

    def size(d_model):
        return count(model_like(base, d_model))

    widths = [*range(8, 256, 8), *range(256, 4096, 32)]
    require(0 < params < math.inf, f"no model has {params:g} parameters; name positive numbers")
    above = bisect.bisect_left(widths, params, key=size)
    nearest = min(widths[max(0, above - 1) : above + 1], key=lambda d_model: abs(math.log(size(d_model) / params)))
    near = abs(math.log(size(nearest) / params)) < math.log(1.5)
    require(near, f"no shape like the config's has about {params:.3g} parameters")
    return model_like(base, nearest)


def configured(base: Config, model: ModelConfig, steps: int, lengths: list[int], lr_exponent: float) -> Config:
    """The base config for another size and a number of steps, one of the `lengths` of its cluster.

    The rules are those at the top of this file; what the cluster shares depends on all of its lengths alone.
    """
    params, reference = counts.parameters(model), counts.parameters(base.model)
    batch_tokens = base.train.batch_size * base.train.seq_len
    warmup = min(params // batch_tokens, int(WARMUP_SHARE * max(lengths)), int(SHORTEST_WARMUP_SHARE * min(lengths)))
    values = {
        "optimizer.peak_lr": float(f"{base.optimizer.peak_lr * (params / reference) ** -lr_exponent:.4g}"),
        "optimizer.schedule": "wsd",
        "optimizer.warmup_steps": warmup,
        "optimizer.decay_fraction": cooldown(steps) / (steps - warmup),
        "train.steps": steps,
    }
    return replace(dataclasses.replace(base, model=model), values)


def cooldown(steps: int) -> int:
    """The steps of a run that its rate decays over."""
    return max(1, round(DECAY * steps))


def fork(steps: int) -> int:
    """The completed steps that a run of `steps` shares with one at a constant rate."""
    return steps - cooldown(steps) - FORK_EARLY


def trunk_of(config: Config, steps: int) -> Config:
    """The run at a constant rate that the branches of a cluster leave."""
    constant = {"optimizer.schedule": "constant", "optimizer.decay_fraction": OptimizerConfig.decay_fraction}
    return replace(config, {**constant, "train.steps": steps})


# A design says how long the runs of each size are, in tokens, when the longest run of the largest size costs C FLOPs.
def _branches(sizes: list[int], C: float) -> list[list[float]]:
    """Every size for several durations, each half of the next."""
    longest = [C * (n / sizes[-1]) ** TILT / (6 * n) for n in sizes]
    return [[tokens / RATIO**i for i in range(DURATIONS)] for tokens in longest]


def _isoflop(sizes: list[int], C: float) -> list[list[float]]:
    """Every size at every budget, the budgets a factor of 4 apart."""
    return [[C / 4**i / (6 * n) for i in range(3)] for n in sizes]


def _lshape(sizes: list[int], C: float) -> list[list[float]]:
    """Every duration of the smallest size, and every size at the shortest of them."""
    short = C / (6 * sizes[-1])
    arm = [short * RATIO**i for i in range(DURATIONS)]
    return [arm] + [[short] for _ in sizes[1:]]


DESIGNS: dict[str, Callable] = {"branches": _branches, "isoflop": _isoflop, "lshape": _lshape}


def design(
    base: Config, name: str, sizes: list[float], budget: float, lr_exponent: float, least_steps: int = LEAST_STEPS
) -> Ladder:
    """The ladder of a design whose `total_flops` come close to `budget` from below.

    `sizes` are numbers of parameters, embeddings included. `UserError` for fewer than two sizes, sizes that fall on one
    shape, and a budget that does not buy two durations of some size and `least_steps` steps of every size.
    """
    require(len(set(sizes)) > 1, "a ladder needs at least two --sizes; one size cannot tell what a larger one gains")
    require(not base.train.batch_ramp, "--train.batch-ramp: a ladder has one batch size; leave it out")
    require(least_steps >= 10, f"--least-steps {least_steps}: a run needs 10 at least")
    require(budget > 0 and math.isfinite(budget), f"--budget {budget:g} must be a positive number of FLOPs")
    models = [rung(base.model, n) for n in sorted(sizes)]
    params = [counts.parameters(model) for model in models]
    require(len(set(params)) == len(params), f"--sizes {sizes}: two of them give one shape; space them out")
    batch_tokens = base.train.batch_size * base.train.seq_len

    def steps(C: float) -> list[list[int]]:
        counted = [{int(tokens / batch_tokens) for tokens in of_size} for of_size in DESIGNS[name](params, C)]
        return [sorted(count for count in of_size if count >= least_steps) for of_size in counted]

    def price(C: float) -> float:
        paid = [sum(_paid(of_size) if name == "branches" else of_size) for of_size in steps(C)]
        return 6.0 * batch_tokens * sum(n * count for n, count in zip(params, paid))

    least = 6.0 * params[-1] * least_steps * batch_tokens * 1.001
    while not all(steps(least)) or max(map(len, steps(least))) < 2:
        least *= 1.02
    require(
        price(least) <= budget,
        f"a ladder of this design up to {params[-1]:,} parameters needs at least {price(least):.3g} FLOPs and the "
        f"budget is {budget:.3g}; raise it, or leave out the largest --sizes",
    )
    low, high = least, least + budget
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if price(middle) <= budget else (low, middle)
    groups = [_runs(base, *pair, lr_exponent, name == "branches") for pair in zip(models, steps(low))]
    return Ladder(tuple(run for group in groups for run in group))


def _paid(steps: list[int]) -> list[int]:
    """The steps that each branch of a trunk adds: the trunk from the fork before, and its own after the fork."""
    forks = [0, *(fork(count) for count in steps)]
    return [count - before for count, before in zip(steps, forks)]


def _runs(base: Config, model: ModelConfig, steps: list[int], lr_exponent: float, branches: bool) -> list[Run]:
    """The runs of one size, from short to long."""
    name, found = f"n{counts.parameters(model) // 1000}k-s{base.train.seed}", []
    for count, paid in zip(steps, _paid(steps) if branches else steps):
        config = configured(base, model, count, steps if branches else [count], lr_exponent)
        run_id = f"{name}-t{count}"
        found.append(Run(run_id, name if branches else run_id, config, fork(count) if branches else 0, paid))
    return found
