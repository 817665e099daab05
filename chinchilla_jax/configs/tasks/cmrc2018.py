"""Chinese questions answered by a span of a paragraph (CMRC 2018): trained on its trial set, tested on dev.

    python -m chinchilla_jax finetune --config tasks/cmrc2018 --from runs/peoples_daily --run-dir runs/cmrc2018 \\
        --task.train CMRC2018/trial.json.gz --task.test CMRC2018/dev.json.gz

1,002 questions to train on, 3,219 to test, scored by CMRC's own definition. To beat: the sentence with most
characters of the question, exact match 0.31, F1 26.14.

From the tagger of `configs/tasks/peoples_daily.py`, 2.6 million parameters, 766 steps in 12 CPU minutes (with
`--model.dtype bfloat16` on a CPU with AMX): exact match 0.37, F1 8.62 on the test. That is less than the sentence has:
a thousand questions teach nothing to a model that has read so little. One seed. SmolLM2 knows no Chinese, and no larger
Chinese model was at hand.
"""

from chinchilla_jax.config import Config, ModelConfig, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """Everything trains, read in both directions, with a head for first and last token."""
    return Config(
        model=ModelConfig(dropout=0.1),
        tune=TuneConfig(method="full"),
        task=TaskConfig(kind="spans", source="bidirectional", epochs=4),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(batch_size=8, seq_len=512),
    )
