"""How parameters move, and which of them end at exactly zero."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Literal

from chinchilla_jax.config.settings import flag, require, setting
from chinchilla_jax.errors import UserError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, its schedule, and what is chained to it."""

    peak_lr: float = setting(3e-4, "learning rate after warm-up")
    schedule: Literal["cosine", "wsd", "constant"] = setting(
        "cosine", "decay over exactly the run's length; wsd holds the peak and then decays linearly"
    )
    warmup_steps: int = setting(100, "steps of linear warm-up")
    final_lr_ratio: float = setting(0.1, "last learning rate over the peak; Chinchilla decays 10x")
    decay_fraction: float = setting(0.2, "share of the steps behind the warm-up that wsd spends decaying")
    b1: float = setting(0.9, "decay of the first moment")
    b2: float = setting(0.95, "decay of the second moment")
    eps: float = setting(1e-8, "added to the root of the second moment")
    weight_decay: float = setting(0.1, "decoupled, on matrices only")
    clip_norm: float = setting(1.0, "largest global norm of the gradient; 0 turns clipping off")
    ema_decay: float = setting(0.0, "decay of an average of the parameters used by evaluate; 0 keeps none")

    def __post_init__(self):
        require(self.peak_lr > 0, f"--optimizer.peak-lr {self.peak_lr} must be positive")
        require(self.warmup_steps >= 0, "--optimizer.warmup-steps must not be negative")
        require(0 <= self.final_lr_ratio <= 1, "--optimizer.final-lr-ratio must lie in [0, 1]")
        require(0 < self.decay_fraction <= 1, "--optimizer.decay-fraction must lie in (0, 1]")
        require(
            self.schedule == "wsd" or self.decay_fraction == type(self).decay_fraction,
            f"--optimizer.decay-fraction {self.decay_fraction} is nothing that {self.schedule} looks at; set "
            "--optimizer.schedule wsd",
        )
        for name in ("b1", "b2", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"{flag('optimizer.' + name)} must lie in [0, 1)")
        require(self.eps > 0, "--optimizer.eps must be positive")
        require(self.weight_decay >= 0, "--optimizer.weight-decay must not be negative")
        require(self.clip_norm >= 0, "--optimizer.clip-norm must not be negative")


# Kinds of patterns that a method can follow, and those to choose; the others follow all. What is tied is zeroed in all
# of its matrices together: grown from there, by rigl or set, no gradient would ever reach it.
KINDS = {"unstructured": "unstructured", "rows": "split", "columns": "split", "heads": "tied", "neurons": "tied"}
MOVING = ("unstructured", "split"), "unstructured, rows, columns or block:RxC"
PATTERNS_OF = {
    "l1": (("unstructured",), "unstructured"),
    "group_lasso": (("split", "tied"), "neurons, heads, rows, columns or block:RxC"),
    "n_m": (("n_m",), "2:4"),
    "rigl": MOVING,
    "set": MOVING,
}

PENALTIES = ("l1", "group_lasso")  # methods whose strength decides how many zeros there will be

# The settings that a method looks at, of those that not all do.
FEW = ("target", "distribution", "every", "strength", "drop", "decay")
SHARED = ("target", "distribution", "every")
FOLLOWS = {
    "off": FEW,
    **dict.fromkeys(PENALTIES, ("strength",)),
    "magnitude": SHARED,
    "n_m": ("every", "decay"),
    "rigl": (*SHARED, "drop"),
    "set": (*SHARED, "drop"),
}


@dataclass(frozen=True)
class SparsityConfig:
    """Which weights are driven to exactly zero, how many, and when."""

    method: Literal["off", "l1", "group_lasso", "magnitude", "n_m", "rigl", "set"] = setting(
        "off", "proximal (l1, group_lasso), gradual pruning (magnitude), N:M (n_m), or a moving mask (rigl, set)"
    )
    target: float = setting(0.75, "share of zeros among the chosen weights of magnitude, rigl and set at the end")
    pattern: str = setting(
        "unstructured",
        "what is zeroed together: unstructured, 2:4 (any N:M, which is its own target), block:16x16, rows (inputs), "
        "columns (outputs), heads, neurons",
    )
    distribution: Literal["auto", "uniform", "erk", "global"] = setting(
        "auto", "how the target is shared among matrices; auto is erk for rigl and set, else uniform"
    )
    start: float | None = setting(None, "share of the run before the first zero; auto is 0 for rigl and set, else 0.25")
    stop: float = setting(0.75, "share of the run after which what is zero stays so")
    every: int = setting(0, "steps between two changes of the mask; 0: 100, or a tenth of start to stop if less")
    strength: float = setting(0.0, "weight of the l1 or group_lasso penalty")
    drop: float = setting(0.3, "share of the weights that rigl and set first move, falling as a cosine")
    decay: float = setting(2e-4, "pull of n_m (SR-STE) on what its mask leaves out")
    include: tuple[str, ...] = setting(
        (r"(attention/(query|key|value|out)|mlp/\w+)/kernel$",),
        "regular expressions of the parameter paths that are made sparse",
    )
    exclude: tuple[str, ...] = setting((), "regular expressions of paths that are left dense all the same")

    def __post_init__(self):
        require(0 <= self.target < 1, f"--sparsity.target {self.target} must lie in [0, 1)")
        start = self.begin
        require(
            0 <= start <= self.stop <= 1,
            f"--sparsity.start {start} and --sparsity.stop {self.stop} must be shares of the run, in order",
        )
        require(self.every >= 0, "--sparsity.every must not be negative")
        require(self.strength >= 0, f"--sparsity.strength {self.strength} must not be negative")
        require(0 < self.drop <= 1, f"--sparsity.drop {self.drop} must lie in (0, 1]")
        require(self.decay >= 0, f"--sparsity.decay {self.decay} must not be negative")
        for rule in (*self.include, *self.exclude):
            try:
                re.compile(rule)
            except re.error as error:
                raise UserError(f"--sparsity.include/exclude: {rule!r} is no regular expression: {error}") from None
        self._check_pattern()

    def _check_pattern(self):
        found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)|block:[1-9]\d*x[1-9]\d*|[a-z]+", self.pattern)
        n, m = found.groups() if found else (None, None)
        require(
            bool(found) and (":" in self.pattern or self.pattern in KINDS) and (n is None or int(n) < int(m)),
            f"--sparsity.pattern {self.pattern!r} is none of N:M with N below M, block:RxC, {', '.join(KINDS)}",
        )
        kind = "n_m" if n else KINDS.get(self.pattern, "split")
        able, others = PATTERNS_OF.get(self.method, ((kind,), ""))
        require(
            kind in able,
            f"--sparsity.method {self.method} does not go with --sparsity.pattern {self.pattern}; choose {others}",
        )
        self._check_few()
        default = type(self).target
        require(
            self.method != "off" or self.target == default,
            f"--sparsity.target {self.target} needs a --sparsity.method, such as magnitude",
        )
        require(
            self.method not in PENALTIES or self.strength > 0,
            f"--sparsity.method {self.method} needs a --sparsity.strength above 0",
        )
        require(
            kind != "n_m" or self.distribution in ("auto", "uniform"),
            f"--sparsity.pattern {self.pattern} leaves nothing to share out; choose --sparsity.distribution uniform",
        )

    @property
    def implied(self) -> float:
        """The share of zeros that a pattern N:M says itself, else 0."""
        n, _, m = self.pattern.partition(":")
        return (int(m) - int(n)) / int(m) if n.isdigit() else 0.0

    def settled(self) -> "SparsityConfig":
        """With every auto replaced by what the method is meant to have (Evci et al. 2020 for rigl and set)."""
        follows = "distribution" in FOLLOWS.get(self.method, ()) and not self.implied
        spread = "erk" if self.method in ("rigl", "set") else "uniform"
        own = spread if follows and self.distribution == "auto" else self.distribution
        return dataclasses.replace(self, start=self.begin, distribution=own)

    @property
    def begin(self) -> float:
        """`start`, as it is meant where nobody has said."""
        own = 0.0 if self.method in ("rigl", "set") else 0.25
        return own if self.start is None else self.start

    def _check_few(self) -> None:
        """A setting that the method would not follow is an error, unless it says what the pattern does."""
        own = self.implied
        for name in (few for few in FEW if few not in FOLLOWS.get(self.method, FEW) or (own and few == "target")):
            value, default = getattr(self, name), getattr(type(self), name)
            require(
                value == default or (name == "target" and math.isclose(value, own)),
                f"--sparsity.{name} {value} is nothing that {self.method} with {self.pattern} looks at; leave it out",
            )
