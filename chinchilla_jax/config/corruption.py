"""Input tokens that are replaced while the targets stay clean: what keeps a text that is read often from being learnt
by heart."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from chinchilla_jax.config.settings import flag, require, setting


@dataclass(frozen=True)
class CorruptionConfig:
    """Input tokens replaced by others, the targets staying clean."""

    share: float = setting(
        0.0,
        "share of the input tokens that is replaced; 0.05, with --optimizer.weight-decay 1, where text is read 16 "
        "times or more",
    )
    kind: Literal["uniform", "unigram", "mask", "gradient"] = setting(
        "uniform",
        "by a piece drawn from the vocabulary, by one of the batch's tokens, by --corruption.mask-piece, or by the "
        "drawn piece that raises the loss most to first order (HotFlip)",
    )
    candidates: int = setting(32, "pieces drawn a row that kind gradient chooses among")
    mask_piece: int = setting(0, "id that kind mask reads; SentencePiece's 0 is the unknown piece")
    copies: float = setting(
        0.0, "share of a microbatch's rows trained corrupted in a pass of its own, beside all clean ones; 0: in place"
    )
    weight: float = setting(1.0, "weight of a corrupted copy, a clean row having 1")
    start: float = setting(0.0, "share of the run before the first replacement")
    ramp: float = setting(0.0, "share of the run, from start on, over which the share rises from 0")
    stop: float = setting(1.0, "share of the run after which the text is read as it is")

    def __post_init__(self):
        for name in ("share", "copies"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"--corruption.{name} {value} must lie in [0, 1]")
        require(self.candidates > 0, "--corruption.candidates must be at least 1")
        require(self.mask_piece >= 0, "--corruption.mask-piece must not be negative")
        require(self.weight >= 0, f"--corruption.weight {self.weight} must not be negative")
        require(
            0 <= self.start < self.stop <= 1,
            f"--corruption.start {self.start} and --corruption.stop {self.stop} must be shares of the run, in order",
        )
        require(0 <= self.ramp <= 1, f"--corruption.ramp {self.ramp} must lie in [0, 1]")
        require(
            self.start + self.ramp <= self.stop + 1e-9,
            f"--corruption.start {self.start} and --corruption.ramp {self.ramp} end after --corruption.stop "
            f"{self.stop}: the share is never reached; lower --corruption.ramp",
        )
        for name, needs, used in (
            ("candidates", "--corruption.kind gradient", self.kind == "gradient"),
            ("mask_piece", "--corruption.kind mask", self.kind == "mask"),
            ("copies", "--corruption.share above 0", self.share > 0),
            ("weight", "--corruption.copies above 0", self.copies > 0),
        ):
            named = flag("corruption." + name)
            require(used or getattr(self, name) == getattr(type(self), name), f"{named} goes with {needs}")

    def window(self, steps: int) -> tuple[int, int]:
        """The first step of a run of `steps` that replaces tokens, and the first after it that does not."""
        first, end = (math.ceil(share * steps - 1e-6) for share in (self.start, self.stop))
        return first, end

    def due(self, step: Any, steps: int) -> Any:
        """Whether a step of a run of `steps`, which may be traced, replaces tokens; plainly True where all do."""
        first, end = self.window(steps)
        return (first, end) == (0, steps) or (step >= first) & (step < end)

    def settled(self) -> "CorruptionConfig":
        """Itself: nothing here is left to choose."""
        return self

    @property
    def slopes(self) -> bool:
        """Whether the gradient of the loss in the embeddings is needed."""
        return self.share > 0 and self.kind == "gradient"
