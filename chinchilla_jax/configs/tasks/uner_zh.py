"""Names of people, places and organisations in Chinese (UNER GSDSIMP): every word read twice, then tagged.

    python -m chinchilla_jax finetune --config tasks/uner_zh --from RUN --run-dir runs/uner_zh \\
        --task.train UNER_ZH/train.conll.gz --task.valid UNER_ZH/dev.conll.gz \\
        --task.test UNER_ZH/test.conll.gz

3,997 sentences to train on, 500 to test. To beat, strict F1: window features with logistic regression 0.5424, a
dictionary 0.3399.

Not run at full size. One epoch from a model of our own with 2 layers, a minute on two shared cores, shows the path and
no quality: strict F1 0.0, every word O.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a head of 7 tags."""
    return Config(
        tune=TuneConfig(method="lora", rank=16),
        task=TaskConfig(kind="tags", source="twice", epochs=5),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(batch_size=16),
    )
