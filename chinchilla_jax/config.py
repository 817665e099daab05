"""Every setting of a run: frozen dataclasses, validated on construction.

The command line, `config.json` and the configs in `configs/` all speak of these fields and no others.
Standard library only, so that `--help` stays fast.
"""

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from chinchilla_jax.errors import UserError


def setting(default: Any, help: str) -> Any:
    """A field with its one-line help."""
    return field(default=default, metadata={"help": help})


def require(ok: bool, message: str) -> None:
    """Raise the one-line `UserError` unless `ok`."""
    if not ok:
        raise UserError(message)


@dataclass(frozen=True)
class ModelConfig:
    """The transformer. Letters: N layers, D d_model, H heads, G kv_heads, K head_dim, F d_ff, V vocab_size."""

    preset: str = setting("", "named shape that the other model settings start from, such as chinchilla-44m")
    layers: int = setting(4, "N, transformer blocks")
    d_model: int = setting(256, "D, width of the residual stream")
    heads: int = setting(4, "H, query heads; heads * head_dim need not equal d_model")
    kv_heads: int = setting(0, "G, key and value heads; 0 means as many as heads")
    head_dim: int = setting(64, "K, width of a head")
    d_ff: int = setting(1024, "F, hidden width of the feed-forward layer")
    vocab_size: int = setting(0, "V, rows of the embedding table; 0 means as many as the tokenizer has pieces")
    positions: Literal["rope", "relative"] = setting("rope", "rotary, or Transformer-XL relative positions")
    mlp: Literal["swiglu", "reglu", "gelu", "relu2"] = setting(
        "swiglu", "feed-forward: gated SiLU, gated ReLU, GELU, or squared ReLU"
    )
    biases: bool = setting(False, "biases on queries, keys, values and the hidden layer")
    tied: bool = setting(True, "one table for embedding and output")
    rope_theta: float = setting(10000.0, "base of the rotary wavelengths")
    norm_eps: float = setting(1e-6, "added to the mean square in RMSNorm")
    init_std: float = setting(0.02, "standard deviation of the initial weights")
    dropout: float = setting(0.0, "share of the residual branches' outputs dropped in training")
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "type of activations; auto is bfloat16 on accelerators and float32 on a CPU"
    )
    kernels: Literal["auto", "reference", "cpu", "cuda", "tpu"] = setting(
        "auto", "implementations of attention and matrix products; auto follows the platform"
    )
    remat: Literal["auto", "none", "projections", "full"] = setting(
        "auto", "what the backward pass recomputes; auto is none for short windows on a CPU, else projections"
    )
    scan_unroll: int = setting(0, "layers a scan iteration unrolls; 0 is up to 16 on a CPU, one elsewhere")

    def __post_init__(self):
        for name in ("layers", "d_model", "heads", "head_dim", "d_ff"):
            require(getattr(self, name) > 0, f"--model.{name.replace('_', '-')} must be at least 1")
        for name in ("kv_heads", "vocab_size", "scan_unroll"):
            require(getattr(self, name) >= 0, f"--model.{name.replace('_', '-')} must not be negative")
        require(
            not self.kv_heads or self.heads % self.kv_heads == 0,
            f"--model.kv-heads {self.kv_heads} does not divide --model.heads {self.heads}",
        )
        require(self.head_dim % 2 == 0, f"--model.head-dim {self.head_dim} must be even for its positions")
        require(
            self.positions == "rope" or self.d_model % 2 == 0,
            f"--model.d-model {self.d_model} must be even for relative positions",
        )
        require(0 <= self.dropout < 1, f"--model.dropout {self.dropout} must lie in [0, 1)")
        require(self.init_std > 0, "--model.init-std must be positive")

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layer multiplies two projections (Shazeer 2020)."""
        return self.mlp in ("swiglu", "reglu")


@dataclass(frozen=True)
class DataConfig:
    """Text in, token store out (`prepare`), and where the store is (every other command)."""

    sources: tuple[str, ...] = setting(
        ("shakespeare",),
        "text files, folders, tfds:NAME/CONFIG:SPLIT, or a built-in: shakespeare, debian_docs, docstrings",
    )
    store: str = setting("", "folder of the token store, local or gs://; empty is data/ and the first source's name")
    field: str = setting("text", "key of the text in .jsonl lines and TFDS examples")
    data_dir: str = setting("", "folder of TFDS data sets and of downloads; empty means ~/tensorflow_datasets")
    tokenizer: str = setting("", "existing SentencePiece model; empty trains one")
    tokenizer_kind: Literal["bpe", "unigram"] = setting("bpe", "kind of SentencePiece model to train")
    vocab_size: int = setting(32000, "pieces of the tokenizer to train")
    tokenizer_sentences: int = setting(
        1_000_000, "most lines of text that tokenizer training reads (a uniform sample beyond that)"
    )
    valid_fraction: float = setting(0.01, "share of the documents held out for validation")
    deduplicate: bool = setting(True, "drop documents that are byte for byte equal to an earlier one")
    workers: int = setting(0, "processes that encode; 0 means one a core")
    seed: int = setting(0, "decides which documents are held out")

    def __post_init__(self):
        require(bool(self.sources), "--data.sources is empty; name a file, a folder or a built-in such as shakespeare")
        require(self.vocab_size >= 264, "--data.vocab-size must be at least 264 (256 bytes and the control pieces)")
        require(0 < self.valid_fraction < 1, f"--data.valid-fraction {self.valid_fraction} must lie inside (0, 1)")
        require(self.workers >= 0, "--data.workers must not be negative")
        require(self.tokenizer_sentences > 0, "--data.tokenizer-sentences must be positive")
        require(0 <= self.seed < 2**32, f"--data.seed {self.seed} must lie in [0, 2**32)")


@dataclass(frozen=True)
class ObjectiveConfig:
    """Dense next-token cross-entropy."""

    z_loss: float = setting(0.0, "weight of the squared log-normaliser (PaLM uses 1e-4)")
    tile_tokens: int = setting(0, "tokens whose logits exist at one time on a device; 0 chooses by platform")
    activation_l1: float = setting(0.0, "weight of the mean L1 norm of the hidden activations (mlp reglu or relu2)")

    def __post_init__(self):
        require(self.z_loss >= 0, f"--objective.z-loss {self.z_loss} must not be negative")
        require(self.activation_l1 >= 0, f"--objective.activation-l1 {self.activation_l1} must not be negative")
        require(self.tile_tokens >= 0, "--objective.tile-tokens must not be negative")


@dataclass(frozen=True)
class Attack:
    """What a method can do: losses of attacked rows, starts and steps; the first loss and start are its own.

    `follows`: which of the settings FEW it looks at, which not all methods do.
    """

    losses: tuple[str, ...] = ("ce",)
    inits: tuple[str, ...] = ("zeros", "uniform", "gaussian")
    steps: int = 0  # 0 for a method without an ascent of its own
    fraction: float = 0.125
    examples: bool = True
    follows: tuple[str, ...] = ("norm",)


FEW = ("norm", "step_size", "probe")
ATTACKS = {
    "off": Attack(),
    "noise": Attack(inits=("uniform", "gaussian"), fraction=1.0),
    "fgm": Attack(losses=("ce", "kl", "sym_kl"), follows=("norm", "step_size")),
    "pgd": Attack(inits=("uniform", "zeros", "gaussian"), steps=3, follows=("norm", "step_size")),
    "freelb": Attack(steps=2, examples=False, follows=("norm", "step_size")),
    "vat": Attack(losses=("kl", "sym_kl"), inits=("gaussian", "uniform"), steps=1, follows=("norm", "probe")),
    "r3f": Attack(losses=("sym_kl", "kl"), inits=("uniform", "gaussian")),
    "softmax_margin": Attack(inits=("zeros",), fraction=1.0, examples=False, follows=()),
}


@dataclass(frozen=True)
class AdversarialConfig:
    """Perturbations of the embeddings that the loss is also to be small under."""

    method: Literal["off", "noise", "fgm", "pgd", "freelb", "vat", "r3f", "softmax_margin"] = setting(
        "off", "how the perturbation is found"
    )
    radius: float = setting(0.05, "strength: size of the ball, in units of the mean norm of the table's rows")
    norm: Literal["l2_token", "l2_sequence", "linf"] = setting(
        "l2_token", "what the radius bounds: a token's L2 norm, a document's, or every coordinate"
    )
    examples: int = setting(1, "perturbed copies of an attacked row, which share its weight")
    steps: int = setting(0, "ascent steps of pgd, freelb and vat; 0 is 3, 2 and 1")
    step_size: float = setting(
        0.0, "length of an ascent step in units of the radius; 0 is 1 for one step, else 2/steps"
    )
    init: Literal["auto", "zeros", "uniform", "gaussian"] = setting(
        "auto", "where the ascent starts, or the kind of noise; auto suits the method"
    )
    probe: float = setting(0.1, "length of vat's random probe in units of the radius")
    fraction: float = setting(
        0.0, "share of a microbatch's rows, rounded down; 0 is all for noise and softmax_margin, else an eighth"
    )
    every: int = setting(1, "attack every so many steps")
    delayed: bool = setting(False, "attack the rows of the step before, in place of fresh ones: no further cost (fgm)")
    loss: Literal["auto", "ce", "kl", "sym_kl"] = setting(
        "auto", "loss of attacked rows: cross-entropy, or divergence from the clean prediction; auto suits the method"
    )
    weight: float = setting(1.0, "weight of an attacked row, a clean row having 1")
    start: float = setting(0.1, "share of the run before the first attack")
    special: tuple[int, ...] = setting(
        (0, 1, 2, 3), "ids that are never perturbed; as it stands, the run's tokenizer says which"
    )

    def __post_init__(self):
        require(self.radius >= 0, f"--adversarial.radius {self.radius} must not be negative")
        for name in ("examples", "every"):
            require(getattr(self, name) > 0, f"--adversarial.{name} must be at least 1")
        for name in ("steps", "step_size", "weight"):
            value = getattr(self, name)
            require(value >= 0, f"--adversarial.{name.replace('_', '-')} {value} must not be negative")
        require(self.probe > 0, f"--adversarial.probe {self.probe} must be positive")
        require(0 <= self.fraction <= 1, f"--adversarial.fraction {self.fraction} must lie in [0, 1]")
        require(0 <= self.start < 1, f"--adversarial.start {self.start} must lie in [0, 1)")
        require(self.method in ATTACKS, f"--adversarial.method {self.method!r} is none of {', '.join(ATTACKS)}")
        self._check(ATTACKS[self.method], f"--adversarial.method {self.method}")

    def _check(self, can: Attack, name: str) -> None:
        """A setting that the method would not follow is an error, not a silence."""
        if self.method == "off":
            return
        require(
            self.loss in ("auto", *can.losses),
            f"{name} trains attacked rows with {' or '.join(can.losses)}; set --adversarial.loss so, or auto",
        )
        require(
            self.init in ("auto", *can.inits),
            f"{name} starts from {' or '.join(can.inits)}; set --adversarial.init so, or auto",
        )
        for few in (few for few in FEW if few not in can.follows):
            default, flag = getattr(type(self), few), f"--adversarial.{few.replace('_', '-')}"
            require(getattr(self, few) == default, f"{name} does not look at {flag}; leave it at {default}")
        require(can.steps or self.steps <= 1, f"{name} takes one step; leave --adversarial.steps at 0, or use pgd")
        require(
            self.method != "freelb" or self.steps != 1,
            f"{name} with one step never attacks; set --adversarial.steps to 2 or more",
        )
        require(can.examples or self.examples == 1, f"{name} makes one example of a row; set --adversarial.examples 1")
        require(
            self.method != "fgm" or self.examples == 1 or self.init in ("uniform", "gaussian"),
            f"{name} with several --adversarial.examples needs a random --adversarial.init to tell them apart",
        )
        plain = self.method == "fgm" and self.examples == 1 and self.init in ("auto", "zeros")
        require(
            not self.delayed or (plain and self.step_size in (0.0, 1.0)),
            "--adversarial.delayed goes with --adversarial.method fgm, one example, init zeros and step-size 0 or 1",
        )
        require(
            not self.delayed or self.fraction <= 0.5,
            f"--adversarial.delayed takes as many fresh rows again: --adversarial.fraction {self.fraction} must be "
            "at most 0.5",
        )

    def first(self, steps: int) -> int:
        """The first step of a run of `steps` that attacks."""
        return math.ceil(self.start * steps)

    def settled(self) -> "AdversarialConfig":
        """With every `auto` and 0 replaced by what the method takes."""
        can = ATTACKS[self.method]
        steps = self.steps or can.steps or 1
        own = (1.0 if steps == 1 else 2 / steps) if "step_size" in can.follows else 0.0
        return dataclasses.replace(
            self,
            steps=steps,
            step_size=self.step_size or own,
            init=can.inits[0] if self.init == "auto" else self.init,
            loss=can.losses[0] if self.loss == "auto" else self.loss,
            fraction=self.fraction or can.fraction,
        )


# Kinds of patterns that a method can follow, and one to choose; the others follow all.
PATTERNS_OF = {
    "l1": (("unstructured",), "unstructured"),
    "group_lasso": (("structured",), "neurons"),
    "n_m": (("n_m",), "2:4"),
    "rigl": (("unstructured", "structured"), "unstructured"),
    "set": (("unstructured", "structured"), "unstructured"),
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
    distribution: Literal["uniform", "erk", "global"] = setting("uniform", "how the target is shared among matrices")
    start: float = setting(0.25, "share of the run before the first zero; rigl and set are meant to have 0")
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
        require(
            0 <= self.start <= self.stop <= 1,
            f"--sparsity.start {self.start} and --sparsity.stop {self.stop} must be shares of the run, in order",
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
        words = ("unstructured", "rows", "columns", "heads", "neurons")
        require(
            bool(found) and (":" in self.pattern or self.pattern in words) and (n is None or int(n) < int(m)),
            f"--sparsity.pattern {self.pattern!r} is none of N:M with N below M, block:RxC, {', '.join(words)}",
        )
        kind = "n_m" if n else "unstructured" if self.pattern == "unstructured" else "structured"
        able, mend = PATTERNS_OF.get(self.method, ((kind,), ""))
        require(
            kind in able,
            f"--sparsity.method {self.method} does not go with --sparsity.pattern {self.pattern}; choose {mend}",
        )
        require(
            self.method not in ("rigl", "set") or self.pattern not in ("heads", "neurons"),
            f"--sparsity.method {self.method} would grow {self.pattern} from 0 in all of their matrices, where no "
            "gradient reaches them; choose --sparsity.pattern rows, columns, block:RxC or unstructured",
        )
        require(
            self.method not in ("l1", "group_lasso") or self.strength > 0,
            f"--sparsity.method {self.method} needs a --sparsity.strength above 0",
        )
        require(
            kind != "n_m" or self.distribution == "uniform",
            f"--sparsity.pattern {self.pattern} leaves nothing to share out; choose --sparsity.distribution uniform",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, its schedule, and what is chained to it."""

    peak_lr: float = setting(3e-4, "learning rate after warm-up")
    schedule: Literal["cosine", "wsd", "constant"] = setting(
        "cosine", "decay over exactly the run's length; wsd holds the peak and then decays linearly"
    )
    warmup_steps: int = setting(100, "steps of linear warm-up")
    final_lr_ratio: float = setting(0.1, "last learning rate over the peak; Chinchilla decays 10x")
    decay_fraction: float = setting(0.2, "share of the run that wsd spends decaying")
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
        for name in ("b1", "b2", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"--optimizer.{name.replace('_', '-')} must lie in [0, 1)")
        require(self.eps > 0, "--optimizer.eps must be positive")
        require(self.weight_decay >= 0, "--optimizer.weight-decay must not be negative")
        require(self.clip_norm >= 0, "--optimizer.clip-norm must not be negative")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one axis may be -1, which takes what the others leave."""

    data: int = setting(-1, "replicas of the parameters that share the batch")
    fsdp: int = setting(1, "devices that share the batch and each parameter's model dimension")
    tensor: int = setting(1, "devices that share heads, hidden units and vocabulary")

    def __post_init__(self):
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
    microbatches: int = setting(1, "parts that the first batch size is worked off in")
    seed: int = setting(0, "decides parameters, order of the data and dropout")
    log_every: int = setting(10, "steps between two rows of metrics.jsonl")
    eval_every: int = setting(500, "steps between two validations; 0 validates at the end only")
    eval_batches: int = setting(0, "most batches of a validation during training; 0 means all")
    sample_every: int = setting(0, "steps between two samples; 0 samples at the end only")
    sample_prompt: str = setting("", "text that samples continue")
    sample_tokens: int = setting(100, "tokens of a sample")
    profile_start: int = setting(-1, "first step of the profiler's window; -1 profiles nothing")
    profile_steps: int = setting(5, "steps of the profiler's window")
    compile_cache: str = setting("", "folder for compiled programs kept between runs; empty keeps none")
    max_bad_steps: int = setting(5, "skipped (non-finite) steps in a row that end the run with exit code 77")
    wandb: str = setting("", "Weights & Biases project to log to as well (needs the wandb extra)")

    def __post_init__(self):
        counted = ("steps", "seq_len", "batch_size", "microbatches", "log_every", "sample_tokens", "profile_steps")
        for name in (*counted, "max_bad_steps"):
            require(getattr(self, name) > 0, f"--train.{name.replace('_', '-')} must be at least 1")
        for name in ("eval_every", "eval_batches", "sample_every"):
            require(getattr(self, name) >= 0, f"--train.{name.replace('_', '-')} must not be negative")
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


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    sparsity: SparsityConfig = SparsityConfig()
    mesh: MeshConfig = MeshConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self):
        require(
            self.optimizer.warmup_steps <= self.train.steps,
            f"--optimizer.warmup-steps {self.optimizer.warmup_steps} exceeds --train.steps {self.train.steps}",
        )


def closest(name: str, names) -> str:
    """A hint in brackets if `name` looks like one of `names`, else nothing."""
    match = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def to_dict(config: Any) -> dict:
    """The plain nested dict of a config, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type, values: dict, path: str = "") -> Any:
    """The config `cls` from a nested dict; a missing key keeps its default, an unknown one is an error."""
    require(isinstance(values, dict), f"{path or 'config'}: expected a table of settings, found {values!r}")
    hints, known = typing.get_type_hints(cls), {f.name for f in dataclasses.fields(cls)}
    for name in values:
        require(name in known, f"unknown setting {path}{name}{closest(name, known)}")
    return cls(**{name: check(hints[name], value, f"{path}{name}") for name, value in values.items()})


WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def check(kind: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `kind`, or a one-line error that names `path`."""
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_dict(kind, value, f"{path}.")
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        require(
            value in choices,
            f"{path}: {value!r} is none of {', '.join(choices)}{closest(str(value), choices)}",
        )
        return value
    if typing.get_origin(kind) is tuple:
        require(isinstance(value, (list, tuple)), f"{path}: expected a list, found {value!r}")
        of = typing.get_args(kind)
        of = [of[0]] * len(value) if of[-1] is Ellipsis else of
        require(len(of) == len(value), f"{path}: expected {len(of)} entries, found {value!r}")
        return tuple(check(k, v, path) for k, v in zip(of, value))
    if kind is float and type(value) is int:
        return float(value)
    require(type(value) is kind, f"{path}: expected {WORDS[kind]}, found {value!r}")
    require(kind is not float or math.isfinite(value), f"{path}: expected a finite number, found {value!r}")
    return value


def replace(config: Any, values: dict[str, Any]) -> Any:
    """`config` with dotted settings changed, such as {"train.steps": 5}."""
    nested: dict = {}
    for path, value in values.items():
        room = nested
        *parents, leaf = path.split(".")
        for parent in parents:
            room = room.setdefault(parent, {})
        room[leaf] = value
    return _merge(config, nested, "")


def _merge(config: Any, nested: dict, path: str) -> Any:
    hints = typing.get_type_hints(type(config))
    changes = {}
    for name, value in nested.items():
        require(name in hints, f"unknown setting {path}{name}{closest(name, hints)}")
        old = getattr(config, name)
        inner = dataclasses.is_dataclass(old) and isinstance(value, dict)
        changes[name] = _merge(old, value, f"{path}{name}.") if inner else check(hints[name], value, path + name)
    return dataclasses.replace(config, **changes)


def differences(old: dict, new: dict, path: str = "") -> dict[str, tuple]:
    """Dotted settings on which two config dicts differ, with both values."""
    found = {}
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{path}{name}.")
        elif a != b:
            found[path + name] = (a, b)
    return found


def describe_type(kind: Any) -> str:
    """The type of a setting as `--help` shows it."""
    if typing.get_origin(kind) is Literal:
        return "|".join(typing.get_args(kind))
    if isinstance(kind, types.GenericAlias):
        return "LIST"
    return kind.__name__.upper()
