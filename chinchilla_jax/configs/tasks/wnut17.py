"""Emerging entities of six types in noisy text (WNUT 2017): every word read twice, the second time tagged.

    python -m chinchilla_jax finetune --config tasks/wnut17 --from RUN --run-dir runs/wnut17 \\
        --task.train WNUT17/train.conll.gz --task.valid WNUT17/dev.conll.gz \\
        --task.test WNUT17/test.conll.gz

3,394 sentences to train on, 1,287 to test. To beat, strict F1: window features with logistic regression 0.0979; the
best of the shared task had 0.4186.

Not run at full size. One epoch from a model of our own with 2 layers, half a minute on two shared cores, shows the path
and no quality: strict F1 0.0, every word O.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a head of 13 tags."""
    return Config(
        tune=TuneConfig(method="lora", rank=16),
        task=TaskConfig(kind="tags", source="twice", epochs=5),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(batch_size=16),
    )
