"""What a customer wants, in words: 11 intents of airline customers (MultiDoGO) by the likeliest label.

    python -m chinchilla_jax finetune --config tasks/customer_intents --from RUN --run-dir runs/intents \\
        --task.train AIRLINE/train.tsv.gz --task.valid AIRLINE/dev.tsv.gz --task.test AIRLINE/test.tsv.gz

To beat on the test: TF-IDF with logistic regression, accuracy 0.8929, macro-F1 0.8438. `--task.kind labels` trains a
head instead, whose figures have the same names. Of that two passes were run, on SmolLM2-135M (`--tune.rank 16
--model.dtype bfloat16 --train.batch-size 8 --optimizer.peak-lr 5e-4`), 134 steps in 9 CPU minutes: accuracy 0.8711,
macro-F1 0.8154, with the loss still falling, which is not enough. Label words were run for six steps from a tiny model
of our own.
"""

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA; the answer is one of the label names."""
    return Config(
        task=TaskConfig(kind="choice", text="utterance", label="intent", epochs=2, generate=500),
        tune=TuneConfig(method="lora"),
        train=TrainConfig(seq_len=128),
    )
