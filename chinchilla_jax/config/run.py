"""Where a run is trained, how long, and what it leaves."""

import re
from dataclasses import dataclass
from typing import Literal

from chinchilla_jax.config.settings import flag, require, setting


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one axis may be -1, which takes what the others leave."""

    data: int = setting(-1, "replicas of the parameters that share the batch")
    fsdp: int = setting(1, "devices that share the batch and each parameter's model dimension")
    tensor: int = setting(1, "devices that share heads, hidden units and vocabulary")
    slices: int = setting(1, "groups of devices, such as TPU slices, with a slower network between them: data spans it")

    def __post_init__(self):
        require(self.slices > 0, "--mesh.slices must be at least 1")
        sizes = (self.data, self.fsdp, self.tensor)
        require(all(s == -1 or s > 0 for s in sizes), f"--mesh axes must be -1 or at least 1, not {sizes}")
        require(sizes.count(-1) <= 1, "only one --mesh axis may be -1; write the others out")


@dataclass(frozen=True)
class TrainConfig:
    """The run: how long, on which windows, and what is written while it goes."""

    steps: int = setting(1000, "optimizer steps of the whole run")
    seq_len: int = setting(256, "L, tokens of a window")
    batch_size: int = setting(8, "B, windows of a step over all devices")
    batch_ramp: tuple[tuple[int, int], ...] = setting(
        (), "later batch sizes as (from step, windows) pairs, such as '((50000, 1536),)'"
    )
    microbatches: int = setting(1, "microbatches that the first batch size is split into")
    seed: int = setting(0, "decides parameters, order of the data and dropout")
    shift_windows: bool = setting(False, "cut the text at other places every time that it is read again")
    log_every: int = setting(10, "steps between two rows of metrics.jsonl")
    eval_every: int = setting(500, "steps between two validations; 0 validates at the end only")
    eval_batches: int = setting(
        -1, "most batches of a validation during training; 0 means all, -1 a tenth of the compute between two of them"
    )
    sample_every: int = setting(0, "steps between two samples; 0 samples at the end only")
    sample_prompt: str = setting("", "text that samples continue")
    sample_tokens: int = setting(100, "tokens of a sample; 0 takes no samples")
    profile_start: int = setting(-1, "first step of the profiler's window; -1 profiles nothing")
    profile_steps: int = setting(5, "steps of the profiler's window")
    compile_cache: str = setting("", "folder for compiled programs kept between runs; empty keeps none")
    max_bad_steps: int = setting(5, "skipped (non-finite) steps in a row that end the run with exit code 77")
    wandb: str = setting("", "Weights & Biases project to log to as well (needs the wandb extra)")

    def __post_init__(self):
        counted = ("steps", "seq_len", "batch_size", "microbatches", "log_every", "profile_steps")
        for name in (*counted, "max_bad_steps"):
            require(getattr(self, name) > 0, f"{flag('train.' + name)} must be at least 1")
        require(self.eval_batches >= -1, "--train.eval-batches must be -1, 0 or the number of batches")
        for name in ("eval_every", "sample_every", "sample_tokens"):
            require(getattr(self, name) >= 0, f"{flag('train.' + name)} must not be negative")
        text = not re.search("[\ud800-\udfff]", self.sample_prompt)
        require(text, f"--train.sample-prompt {self.sample_prompt!r} is no UTF-8 text; correct it")
        require(0 <= self.seed < 2**32, f"--train.seed {self.seed} must lie in [0, 2**32)")
        micro = self.batch_size // self.microbatches
        require(
            self.batch_size % self.microbatches == 0,
            f"--train.batch-size {self.batch_size} is not divisible by --train.microbatches {self.microbatches}",
        )
        starts = [start for start, _ in self.batch_ramp]
        require(
            starts == sorted(set(starts)) and all(s > 0 for s in starts),
            "--train.batch-ramp needs rising steps above 0, such as ((50000, 1536),)",
        )
        for start, rows in self.batch_ramp:
            require(
                rows > 0 and rows % micro == 0,
                f"--train.batch-ramp: {rows} windows from step {start} are no multiple of the microbatch of {micro}",
            )

    @property
    def phases(self) -> tuple[tuple[int, int], ...]:
        """(first step, windows a step) of every batch size, in order."""
        return ((0, self.batch_size), *self.batch_ramp)

    def rows_before(self, step: int) -> int:
        """Windows that all steps before `step` use, over every phase of the batch size."""
        ends = [start for start, _ in self.phases[1:]] + [step]
        return sum(rows * max(0, min(end, step) - start) for (start, rows), end in zip(self.phases, ends))


@dataclass(frozen=True)
class CheckpointConfig:
    """When the state is saved, what is kept, and how hard a restore looks."""

    every: int = setting(500, "steps between two checkpoints; the last step is always saved")
    keep: int = setting(3, "newest checkpoints kept")
    keep_every: int = setting(0, "checkpoints at multiples of this step are kept for good; 0 keeps none so")
    asynchronous: bool = setting(True, "write while training goes on")
    verify: Literal["size", "hash", "full"] = setting(
        "hash", "check of a checkpoint before use: file sizes, checksums, or checksums and every leaf's fingerprint"
    )

    def __post_init__(self):
        require(self.every > 0, "--checkpoint.every must be at least 1")
        require(self.keep > 0, "--checkpoint.keep must be at least 1")
        require(self.keep_every >= 0, "--checkpoint.keep-every must not be negative")
