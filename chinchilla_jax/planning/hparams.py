"""Published rules for the learning rate and the batch, each with its units and the range that it was measured in.

They disagree by factors of two and more: `band` has least, median and most. Rates are peaks, of AdamW unless a
rule says otherwise, and batches are tokens, whatever the source counts in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.config import ModelConfig, closest, require
from chinchilla_jax.scaling import counts


@dataclass(frozen=True)
class Scale:
    """What a rule may depend on.

    `n_matmul` parameters of all matrices with the head, `n_nonembed` without the tables, `tokens` of the run,
    `work` FLOPs without the tables but with attention (DeepSeek's C = M D), `width` of the residual stream.
    """

    n_matmul: float
    n_nonembed: float
    tokens: float
    work: float
    width: float

    def __post_init__(self):
        for name, value in vars(self).items():
            require(value > 0 and math.isfinite(value), f"{name} must be a positive number, not {value:g}")


def scale(model: ModelConfig, tokens: float, seq_len: int = 0) -> Scale:
    """The scale of a run of `tokens`; attention counts in `work` where `seq_len` is given."""
    n = counts.non_embedding(model)
    attention = 12 * model.layers * model.heads * model.head_dim * seq_len
    return Scale(counts.matmul_parameters(model), n, tokens, (6 * n + attention) * tokens, model.d_model)


@dataclass(frozen=True)
class Rule:
    """`rate(scale)`, and `batch(scale)` in tokens; None where the rule has none.

    `ranges` is where it was measured, by field of `Scale` or "ratio" of tokens to `count`; `count` is the N it means.
    """

    rate: Callable[[Scale], float] | None
    batch: Callable[[Scale], float] | None
    ranges: dict[str, tuple[float, float]]
    count: str
    source: str

    def outside(self, at: Scale) -> float:
        """ln of the compute between a run and the range that it was measured in; 0 inside."""
        values = vars(at) | {"ratio": at.tokens / getattr(at, self.count)}
        far = 0.0
        for name, (low, high) in self.ranges.items():
            off = max(0.0, math.log(low / values[name]) if low else 0.0, math.log(values[name] / high))
            far = max(far, off * (1 if name == "work" else 2))  # compute goes with the square of size and of length
        return far

    def inside(self, at: Scale) -> bool:
        """Whether it was measured at such a scale."""
        return self.outside(at) == 0

    @property
    def range(self) -> str:
        """The range in words."""
        return ", ".join(f"{name} {low:.2g} to {high:.2g}" for name, (low, high) in self.ranges.items())


SMALL_RATE, SMALL_SIZE, SMALL_EXPONENT, SMALL_BATCH = 2.3e-3, 1.105e6, -0.45, 1024  # configs/sweep_cpu.py

LAWS = {
    "small-cpu": Rule(
        rate=lambda s: SMALL_RATE * (s.n_matmul / SMALL_SIZE) ** SMALL_EXPONENT,
        batch=lambda s: SMALL_BATCH,
        ranges={"n_matmul": (3e4, 5e6), "tokens": (0, 2e8)},
        count="n_matmul",
        source="docs/scaling/README.md, the probe of our own sweep",
    ),
    "step-law": Rule(
        rate=lambda s: 1.79 * s.n_nonembed**-0.713 * s.tokens**0.307,
        batch=lambda s: 0.58 * s.tokens**0.571,
        ranges={"n_nonembed": (5e7, 2e9), "tokens": (1e9, 2e11)},
        count="n_nonembed",
        source="Li et al. 2025, arXiv:2503.04715; the final rate fixed at 1e-5",
    ),
    "porian": Rule(
        rate=lambda s: 0.0047 * (s.n_matmul / 108e6) ** (-1 / 3),
        batch=lambda s: 2048 * 160 * (s.n_matmul / 108e6) ** (2 / 3),
        ranges={"n_matmul": (5e6, 1e9), "ratio": (5, 100)},
        count="n_matmul",
        source="Porian et al. 2024, arXiv:2406.19146, in sequences of 2048; beta2 0.99 up to 220M, 0.95 above",
    ),
    "deepseek": Rule(
        rate=lambda s: 0.3118 * s.work**-0.1250,
        batch=lambda s: 0.2920 * s.work**0.3271,
        ranges={"work": (1e17, 1e20)},
        count="n_nonembed",
        source="DeepSeek-AI 2024, arXiv:2401.02954; near the optimal ratio, 0.25 % over the least loss counted as good",
    ),
    "kaplan": Rule(
        rate=lambda s: 0.003239 - 0.0001395 * math.log(s.n_nonembed),
        batch=None,  # theirs is the critical batch, which buys time with compute
        ranges={"n_nonembed": (1e4, 1.5e9), "tokens": (2e7, 2.3e10)},
        count="n_nonembed",
        source="Kaplan et al. 2020, arXiv:2001.08361; Adam",
    ),
    "marin": Rule(
        rate=lambda s: min(0.01, 0.33 * (_marin_batch(s) / 4096) ** 0.5 / s.width),
        batch=lambda s: _marin_batch(s),
        ranges={"work": (1e18, 3e20)},
        count="n_matmul",
        source="Marin's C-AdamC recipe for sweeps (2025), in sequences of 4096: 2^16 steps; cautious AdamW, decay 0.1",
    ),
    "nanochat": Rule(
        rate=None,
        batch=lambda s: 2.0 ** round(math.log2(2**19 * (s.tokens / 1.32e9) ** 0.383)),
        ranges={"n_matmul": (4e7, 1e9), "ratio": (4, 20)},
        count="n_matmul",
        source="nanochat (2026), from 2^19 tokens at depth 12; exponent of Bergsma et al. 2025, arXiv:2505.13738; Muon",
    ),
}


def _marin_batch(s: Scale) -> float:
    """Tokens of 2^16 steps, in sequences rounded up to a power of two."""
    return 4096 * 2.0 ** max(0, math.ceil(math.log2(s.tokens / 2**16 / 4096)))


def advice(name: str, at: Scale, *, force: bool = False) -> tuple[float | None, float | None]:
    """(peak rate, batch tokens) by one rule; `UserError` outside its range unless `force`."""
    require(name in LAWS, f"no rule {name!r}{closest(name, LAWS)}; known are {', '.join(LAWS)}")
    rule = LAWS[name]
    known = f"{name} was measured for {rule.range}, and this run lies outside; name another, or force it"
    require(force or rule.inside(at), known)
    return rule.rate and rule.rate(at), rule.batch and rule.batch(at)


MIDDLE = np.linspace(0.2, 0.8, 25)  # quantiles of the rules, in logs, whose mean is the pick


@dataclass(frozen=True)
class Band:
    """Least and most that the rules in their range say, and the pick: their median, joined between ranges.

    Where no rule was measured the nearest are carried on, and `rules` is empty.
    """

    low: float
    pick: float
    high: float
    rules: tuple[str, ...]


def band(at: Scale, what: str) -> Band:
    """The "rate" or the "batch" (tokens) of a run. Rules count less the farther off they are, a third a decade,
    and less beside several that were measured there."""
    found = []
    for name, rule in LAWS.items():
        value = getattr(rule, what) and getattr(rule, what)(at)
        if value and value > 0:
            found.append((math.log(value), rule.outside(at), name))
    found.sort()
    inside = [value for value, far, _ in found if far == 0]
    weights = np.array([math.exp(-far / 2) / (max(1, len(inside)) ** 2 if far else 1) for _, far, _ in found])
    middles = (np.cumsum(weights) - weights / 2) / weights.sum()
    # A median that does not jump where a rule comes or goes.
    pick = float(np.interp(MIDDLE, middles, [value for value, _, _ in found]).mean())
    if len(inside) > 1:
        pick = min(max(pick, inside[0]), inside[-1])
    low, high = min([pick, *inside]), max([pick, *inside])
    return Band(math.exp(low), math.exp(pick), math.exp(high), tuple(name for _, far, name in found if far == 0))


# A batch or a rate off its optimum: Schaipp et al. 2026 (arXiv:2607.01487) lose up to 5 % of compute in [B / 2, 2 B].
BAND_COST = "leaving the band: half or twice the best batch costs up to 5 % of the compute (arXiv:2607.01487)"


def comparison(at: Scale) -> list[dict[str, object]]:
    """Every rule that was measured at such a scale, as plain dicts."""
    known = {name: rule for name, rule in LAWS.items() if rule.inside(at)}
    pairs = {name: advice(name, at) for name in known}
    return [{"rule": name, "peak_lr": pairs[name][0], "batch_tokens": pairs[name][1], "source": known[name].source}
            for name in known]  # fmt: skip
