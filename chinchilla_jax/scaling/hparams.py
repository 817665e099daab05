"""Published rules for the learning rate and the batch, each with its units and the range that it was measured in.

They disagree by factors of two and more; `suggest` and `table` show by how much. Rates are peaks, of AdamW unless a
rule says otherwise, and batches are tokens, whatever the source counts in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from chinchilla_jax.config import ModelConfig, closest, require
from chinchilla_jax.scaling import counts
from chinchilla_jax.scaling.published import published


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

    def inside(self, at: Scale) -> bool:
        """Whether it was measured at such a scale."""
        values = vars(at) | {"ratio": at.tokens / getattr(at, self.count)}
        return all(low <= values[name] <= high for name, (low, high) in self.ranges.items())

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
        batch=lambda s: 2e8 * float(published("kaplan").surface.loss(s.n_nonembed, s.tokens)) ** (-1 / 0.21),
        ranges={"n_nonembed": (1e4, 1.5e9), "tokens": (2e7, 2.3e10)},
        count="n_nonembed",
        source="Kaplan et al. 2020, arXiv:2001.08361; Adam, the critical batch at the law's loss",
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


def advised(model: ModelConfig, tokens: float) -> tuple[float, float]:
    """(peak rate, batch tokens) by the first rule whose range holds the run; beyond all of them by deepseek's.

    Between the small rule and the others the nearest holds: rates and batches change slowly.
    """
    at = scale(model, tokens)
    for name, rule in LAWS.items():
        if rule.rate and rule.batch and rule.inside(at):
            return advice(name, at)
    return advice("small-cpu" if at.work < 1e17 else "deepseek", at, force=True)


@dataclass(frozen=True)
class Suggestion:
    """One rule at a run: peak rate and batch tokens, None where it has none, and whether it was measured there."""

    rule: str
    peak_lr: float | None
    batch_tokens: float | None
    inside: bool
    source: str


def suggest(at: Scale) -> list[Suggestion]:
    """Every rule at a run, those that were measured there first."""
    rows = [
        Suggestion(name, *advice(name, at, force=True), rule.inside(at), rule.source) for name, rule in LAWS.items()
    ]
    return sorted(rows, key=lambda row: not row.inside)


def comparison(model: ModelConfig, tokens: float) -> list[dict[str, object]]:
    """`suggest` for a model, as plain dicts."""
    return [vars(row) for row in suggest(scale(model, tokens))]


def disagreement(rows: list[Suggestion], what: str = "peak_lr") -> float:
    """Largest over smallest of `peak_lr` or `batch_tokens`, among the rules inside their range (of all if none is)."""
    values = [getattr(row, what) for row in rows if row.inside and getattr(row, what)]
    values = values or [getattr(row, what) for row in rows if getattr(row, what)]
    return max(values) / min(values)


def table(rows: list[Suggestion]) -> str:
    """The suggestions in lines, and by what factors they disagree."""
    lines = [f"{'rule':<10} {'peak rate':>9} {'batch tokens':>12}"]
    for row in rows:
        rate = "-" if row.peak_lr is None else f"{row.peak_lr:.2e}"
        batch = "-" if row.batch_tokens is None else f"{row.batch_tokens:,.0f}"
        lines.append(f"{row.rule:<10} {rate:>9} {batch:>12}{'' if row.inside else '  outside its range'}")
    factors = " and ".join(f"{disagreement(rows, what):.1f}" for what in ("peak_lr", "batch_tokens"))
    return "\n".join([*lines, f"they disagree by factors of {factors}"])
