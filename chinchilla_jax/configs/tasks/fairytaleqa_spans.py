"""Questions about fairy tales answered by a span of the text (FairytaleQA).

    python -m chinchilla_jax finetune --config tasks/fairytaleqa_spans --from RUN --run-dir runs/fairytaleqa_spans \\
        --task.train FAIRYTALEQA/train.jsonl.gz --task.valid FAIRYTALEQA/val.jsonl.gz \\
        --task.test FAIRYTALEQA/test.jsonl.gz

Of 8,548 questions to train on 4,031 have an answer that stands in its section; of 1,007 to test 648, and the others
count as missed. To beat: the sentence with most words of the question, exact match 0.30, F1 20.49.

Not run at full size. A fifth of an epoch from a model of our own with 2 layers, three minutes on two shared cores,
shows the path and no quality: exact match 0.00, F1 5.49.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a head for first and last token."""
    return Config(
        tune=TuneConfig(method="lora", rank=16),
        task=TaskConfig(kind="spans", source="twice", epochs=2),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(batch_size=16),
    )
