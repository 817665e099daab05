"""Every setting of a run: frozen dataclasses, validated on construction.

The command line, `config.json` and the configs in `configs/` all speak of these fields and no others.
Standard library only, so that `--help` stays fast.
"""

from dataclasses import dataclass, field

from chinchilla_jax.config.objective import AdversarialConfig, ObjectiveConfig
from chinchilla_jax.config.optimizer import PENALTIES, OptimizerConfig, SparsityConfig
from chinchilla_jax.config.run import CheckpointConfig, MeshConfig, TrainConfig
from chinchilla_jax.config.settings import (
    check,
    closest,
    describe_type,
    differences,
    expanded,
    from_dict,
    get,
    replace,
    require,
    to_dict,
)
from chinchilla_jax.config.shape import DataConfig, ModelConfig
from chinchilla_jax.config.task import TaskConfig
from chinchilla_jax.config.tuning import TuneConfig

__all__ = [
    "PENALTIES",
    "AdversarialConfig",
    "CheckpointConfig",
    "Config",
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
    "closest",
    "describe_type",
    "differences",
    "expanded",
    "from_dict",
    "get",
    "replace",
    "require",
    "to_dict",
]


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
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
            self.adversarial.method == "off" or self.adversarial.first(self.train.steps) < self.train.steps,
            f"--adversarial.start {self.adversarial.start} leaves none of {self.train.steps} steps to attack; lower it",
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
