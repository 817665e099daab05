"""Chinese questions answered by a span of a paragraph (CMRC 2018): trained on its trial set, tested on dev.

    python -m chinchilla_jax finetune --config tasks/cmrc2018 --from RUN --run-dir runs/cmrc2018 \\
        --task.train CMRC2018/trial.json.gz --task.test CMRC2018/dev.json.gz

1,002 questions to train on, 3,219 to test, scored by CMRC's own definition. To beat: the sentence with most
characters of the question, exact match 0.31, F1 26.14.

With SmolLM2, which knows no Chinese, it was not run. From the tagger of `configs/tasks/peoples_daily.py`, 2.6 million
parameters (`--tune.method full --tune.rank 0 --task.source bidirectional --task.epochs 4 --train.batch-size 8
--train.seq-len 512 --model.dropout 0.1 --model.dtype bfloat16`), 766 steps in 12 CPU minutes: exact match 0.37, F1
8.62 on the test. That is less than the sentence has: a thousand questions teach nothing to a model that has read so
little.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a head for first and last token."""
    return Config(
        tune=TuneConfig(method="lora", rank=16),
        task=TaskConfig(kind="spans", source="twice", epochs=3),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(batch_size=16),
    )
