"""Every setting of a run: frozen dataclasses, validated on construction.

The command line, `config.json` and the configs in `configs/` all speak of these fields and no others.
Standard library only, so that `--help` stays fast.
"""

from dataclasses import dataclass, field

from chinchilla_jax.config.corruption import CorruptionConfig
from chinchilla_jax.config.objective import AdversarialConfig, ObjectiveConfig, whole_rows
from chinchilla_jax.config.optimizer import PENALTIES, OptimizerConfig, SparsityConfig
from chinchilla_jax.config.run import CheckpointConfig, MeshConfig, TrainConfig
from chinchilla_jax.config.settings import (
    AUTO,
    check,
    chosen,
    closest,
    describe_type,
    differences,
    expanded,
    flag,
    from_dict,
    get,
    replace,
    require,
    to_dict,
    typed,
)
from chinchilla_jax.config.shape import DataConfig, ModelConfig
from chinchilla_jax.config.task import TaskConfig
from chinchilla_jax.config.tuning import TuneConfig

__all__ = [
    "AUTO",
    "PENALTIES",
    "AdversarialConfig",
    "CheckpointConfig",
    "Config",
    "CorruptionConfig",
    "DataConfig",
    "MeshConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "SparsityConfig",
    "TaskConfig",
    "TrainConfig",
    "TuneConfig",
    "check",
    "chosen",
    "closest",
    "describe_type",
    "differences",
    "expanded",
    "flag",
    "from_dict",
    "get",
    "replace",
    "require",
    "to_dict",
    "typed",
    "whole_rows",
]


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self):
        require(
            self.optimizer.warmup_steps <= self.train.steps,
            f"--optimizer.warmup-steps {self.optimizer.warmup_steps} exceeds --train.steps {self.train.steps}",
        )
        require(
            self.tune.method != "prompt" or self.tune.prompt < self.train.seq_len,
            f"--tune.prompt {self.tune.prompt} leaves no room in windows of --train.seq-len {self.train.seq_len}",
        )
        require(
            not self.adversarial.on or self.adversarial.first(self.train.steps) < self.train.steps,
            f"--adversarial.start {self.adversarial.settled().start} leaves none of {self.train.steps} steps to "
            "attack; lower it",
        )
        require(
            not self.adversarial.rdrop or self.model.dropout > 0 or self.tune.dropout > 0,
            "--adversarial.rdrop compares two dropout masks; set --model.dropout (R-Drop's paper: 0.1 to 0.3)",
        )
        require(
            self.adversarial.method != "off" or (self.adversarial.radius is None and not self.adversarial.delayed),
            "--adversarial.radius and --adversarial.delayed need an --adversarial.method; choose one or leave them out",
        )
        masks, pieces = self.corruption.share > 0 and self.corruption.kind == "mask", self.model.vocab_size
        require(
            not (masks and pieces) or self.corruption.mask_piece < pieces,
            f"--corruption.mask-piece {self.corruption.mask_piece} is no id of a vocabulary of {pieces}; lower it",
        )
        beside = self.corruption.share > 0 and self.corruption.copies > 0
        require(
            not (beside and self.adversarial.alone),
            f"--adversarial.method {self.adversarial.method} alters the main pass, so that no copies stand beside it; "
            "set --corruption.copies 0, which corrupts in place",
        )
        both = self.task.source == "bidirectional"
        require(
            not both or self.model.positions == "rope",
            "--task.source bidirectional needs positions in both directions, which --model.positions relative has not",
        )
        require(
            not (both and self.adversarial.delayed),
            "--adversarial.delayed keeps rows without their blocks; leave it off with --task.source bidirectional",
        )

    @property
    def context(self) -> int:
        """Tokens of the longest text that the model is meant for."""
        return self.model.context or self.train.seq_len
