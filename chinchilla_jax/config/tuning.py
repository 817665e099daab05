"""What of a trained model is trained further, and how a frozen rest is stored."""

import re
from dataclasses import dataclass
from typing import Literal

from chinchilla_jax.config.settings import flag, require, setting
from chinchilla_jax.errors import UserError

LOW_RANK = ("lora", "rslora", "dora", "adalora")
WHOLE = ("off", "full")  # methods that train every parameter, so that nothing is frozen

# The settings that a method looks at, of those that not all do; `dropout` is that of the adapter's input.
ALLOCATION = ("start_rank", "begin", "finish", "every", "orthogonality", "beta", "compat")
FEW = ("rank", "alpha", "dropout", "targets", "top", "prompt", *ALLOCATION)
ADAPTED = ("rank", "alpha", "dropout", "targets")
FOLLOWS = {
    "lora": ADAPTED,
    "rslora": ADAPTED,
    "dora": ADAPTED,
    "adalora": (*ADAPTED, *ALLOCATION),
    "ia3": ("targets",),
    "houlsby": ("targets", "rank"),
    "prompt": ("prompt",),
    "top": ("top",),
}


@dataclass(frozen=True)
class TuneConfig:
    """Fine-tuning: the run that it starts from, the method, and what the method trains."""

    method: Literal[
        "off", "full", "head", "top", "lora", "rslora", "dora", "adalora", "ia3", "houlsby", "prompt", "norms", "biases"
    ] = setting(
        "off",
        "what trains: everything (off: from scratch, or lora with `finetune --from`), the head, the top layers, or an "
        "adapter",
    )
    base: str = setting("", "run directory whose best or newest checkpoint training starts from")
    layers: int = setting(0, "layers of the base that are kept, from the first on, at so much less cost; 0 keeps all")
    weights: Literal["float", "int8", "int4"] = setting(
        "float", "how the frozen matrices are stored: as they are, 8 bits, or 4 bits in groups of 32 inputs (QLoRA)"
    )
    targets: str = setting(
        "",
        "matrices with an adapter: all-linear, names such as q,v or gate,up,down, or a regular expression over paths; "
        "empty is all-linear (ia3: k,v,down; houlsby: out,down)",
    )
    rank: int = setting(0, "rank of an adapter (adalora: mean at the end); 0 is 16 (houlsby: d_model / 16)")
    alpha: float = setting(0.0, "an adapter is scaled by alpha / rank (rslora: / sqrt(rank)); 0 is twice the rank")
    dropout: float = setting(0.0, "share of an adapter's inputs dropped in training")
    top: int = setting(1, "layers, counted from the last, that method top trains with the final norm")
    prompt: int = setting(20, "learned rows before every document with method prompt, the weakest on small models")
    untie: bool = setting(False, "give the output matrix a copy of its own before training it or an adapter of it")
    rows: tuple[int, ...] = setting((), "ids whose rows of the table train beside the method, such as new pieces")
    rows_start: Literal["mean", "own"] = setting(
        "mean", "where these rows start: at the mean of the table (new pieces) or as they are"
    )
    start_rank: int = setting(0, "adalora: rank of every matrix at the start; 0 is 1.5 times --tune.rank")
    begin: float = setting(0.1, "adalora: share of the run before the first triplet goes")
    finish: float = setting(0.3, "adalora: share of the run that trains the final ranks")
    every: int = setting(0, "adalora: updates between two allocations; 0 is 10, or a hundredth of the run if more")
    orthogonality: float = setting(0.1, "adalora: weight of the penalty that keeps its factors orthogonal")
    beta: float = setting(0.85, "adalora: decay of the averages of sensitivity and uncertainty")
    compat: Literal["ours", "peft"] = setting(
        "ours",
        "adalora: ours starts as lora does, and what went stays 0 until an allocation brings it back; peft starts "
        "with singular values of 0, and what went trains on in between",
    )

    def __post_init__(self):
        for name in ("layers", "rank", "start_rank", "every"):
            require(getattr(self, name) >= 0, f"{flag('tune.' + name)} must not be negative")
        for name in ("top", "prompt"):
            require(getattr(self, name) > 0, f"--tune.{name} must be at least 1")
        for name in ("dropout", "beta", "begin", "finish"):
            require(0 <= getattr(self, name) < 1, f"--tune.{name} {getattr(self, name)} must lie in [0, 1)")
        require(self.begin + self.finish < 1, "--tune.begin and --tune.finish together must leave some of the run")
        require(self.alpha >= 0, f"--tune.alpha {self.alpha} must not be negative")
        require(self.orthogonality >= 0, f"--tune.orthogonality {self.orthogonality} must not be negative")
        require(all(row >= 0 for row in self.rows), "--tune.rows are ids of pieces, none of them negative")
        require(len(set(self.rows)) == len(self.rows), "--tune.rows names an id twice")
        require(
            self.weights == "float" or self.method not in ("full", "top"),
            f"--tune.weights {self.weights} freezes the matrices that --tune.method {self.method} trains; use float",
        )
        require(
            not self.start_rank or self.start_rank >= (self.rank or 16),
            f"--tune.start-rank {self.start_rank} is below the rank at the end, --tune.rank {self.rank or 16}",
        )
        self._check_few()
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"--tune.targets: {self.targets!r} is no regular expression: {error}") from None

    def _check_few(self) -> None:
        """A setting that the method would not follow is an error, not a silence."""
        for name in (few for few in FEW if few not in FOLLOWS.get(self.method, ())):
            value, default = getattr(self, name), getattr(type(self), name)
            named = flag("tune." + name)
            require(
                value == default or self.method == "off",
                f"{named} {value} is nothing that --tune.method {self.method} looks at; leave it out",
            )

    @property
    def whole(self) -> bool:
        """Whether every parameter trains, so that a checkpoint holds a whole model and needs no base."""
        return self.method in WHOLE

    @property
    def soft(self) -> int:
        """Tokens of a soft prompt."""
        return self.prompt if self.method == "prompt" else 0

    def ranks(self, d_model: int) -> tuple[int, int]:
        """Rank of a matrix at the start and, in the mean, at the end."""
        final = self.rank or (max(1, d_model // 16) if self.method == "houlsby" else 16)
        return ((self.start_rank or -(-3 * final // 2)) if self.method == "adalora" else final), final

    def scale(self, d_model: int = 0) -> float:
        """What the product of an adapter is multiplied by: alpha / r, rslora alpha / sqrt(r), adalora as in peft."""
        rank = self.ranks(d_model)[0]
        alpha = self.alpha or 2 * rank
        return alpha / {"rslora": rank**0.5, "adalora": rank + 1e-5}.get(self.method, rank)
