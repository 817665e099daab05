"""Published rules for the learning rate and the batch, each with its units and the range that it was measured in.

They disagree by factors of two and more; `comparison` shows by how much. All rates are peaks of AdamW.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chinchilla_jax.config import ModelConfig, closest, require
from chinchilla_jax.scaling.roofline import sizes


@dataclass(frozen=True)
class Scale:
    """What a rule may depend on: parameters (matrices with the head; without the tables), tokens, FLOPs 6 N D."""

    n_matmul: float
    n_nonembed: float
    tokens: float

    @property
    def flops(self) -> float:
        """6 N D with the matrices' N."""
        return 6 * self.n_matmul * self.tokens


@dataclass(frozen=True)
class Rule:
    """`rate(scale)`, `batch(scale)` in tokens; `inside(scale)` says whether it was measured at such a scale."""

    rate: Callable[[Scale], float]
    batch: Callable[[Scale], float]
    inside: Callable[[Scale], bool]
    source: str
    range: str


RULES = {
    "small-cpu": Rule(
        rate=lambda s: SMALL_RATE * (s.n_matmul / SMALL_SIZE) ** SMALL_EXPONENT,
        batch=lambda s: SMALL_BATCH,
        inside=lambda s: 3e4 <= s.n_matmul <= 5e6 and s.tokens <= 2e8,
        source="docs/scaling/README.md, the probe of our own sweep",
        range="N 3e4 to 5e6, D to 2e8",
    ),
    "step-law": Rule(
        rate=lambda s: 1.79 * s.n_nonembed**-0.713 * s.tokens**0.307,
        batch=lambda s: 0.58 * s.tokens**0.571,
        inside=lambda s: 5e7 <= s.n_nonembed <= 2e9 and 1e9 <= s.tokens <= 2e11,
        source="Li et al. 2025, arXiv:2503.04715; N without embeddings",
        range="N 5e7 to 2e9, D 1e9 to 2e11",
    ),
    "porian": Rule(
        rate=lambda s: 0.0047 * (s.n_matmul / 108e6) ** (-1 / 3),
        batch=lambda s: 2048 * 160 * (s.n_matmul / 108e6) ** (2 / 3),
        inside=lambda s: 5e6 <= s.n_matmul <= 1e9 and 5 <= s.tokens / s.n_matmul <= 100,
        source="Porian et al. 2024, arXiv:2406.19146; N of all matrices with the head, near the optimum's D / N",
        range="N 5e6 to 1e9, D / N 5 to 100",
    ),
    "deepseek": Rule(
        rate=lambda s: 0.3118 * s.flops**-0.1250,
        batch=lambda s: 0.2920 * s.flops**0.3271,
        inside=lambda s: 1e17 <= s.flops <= 1e24,
        source="DeepSeek-AI 2024, arXiv:2401.02954; C of all matrices and attention, near the optimum's D / N",
        range="C 1e17 to 1e24",
    ),
}
SMALL_RATE, SMALL_SIZE, SMALL_EXPONENT, SMALL_BATCH = 3e-3, 1.17e6, -0.33, 2048


def scale(model: ModelConfig, tokens: float) -> Scale:
    """The scale of a run."""
    n = sizes(model)
    return Scale(model.layers * n.met + n.table, n.total - n.table * (1 if model.tied else 2), tokens)


def advice(name: str, at: Scale, *, force: bool = False) -> tuple[float, float]:
    """(peak rate, batch tokens) by one rule; `UserError` outside its range unless `force`."""
    require(name in RULES, f"no rule {name!r}{closest(name, RULES)}; known are {', '.join(RULES)}")
    rule = RULES[name]
    require(force or rule.inside(at), f"{name} was measured for {rule.range}, and this run lies outside; name another")
    return rule.rate(at), rule.batch(at)


def advised(model: ModelConfig, tokens: float) -> tuple[float, float]:
    """(peak rate, batch tokens) by the first rule whose range holds the run; beyond all of them by deepseek's.

    Between the small rule and the others the nearest holds: rates and batches change slowly.
    """
    at = scale(model, tokens)
    for name, rule in RULES.items():
        if rule.inside(at):
            return advice(name, at)
    return advice("small-cpu" if at.flops < 1e17 else "deepseek", at, force=True)


def comparison(model: ModelConfig, tokens: float) -> list[dict[str, object]]:
    """Every rule at a run: rate, batch tokens, whether it was measured there."""
    at = scale(model, tokens)
    return [
        {"rule": name, "peak_lr": r.rate(at), "batch_tokens": r.batch(at), "inside": r.inside(at), "source": r.source}
        for name, r in RULES.items()
    ]
