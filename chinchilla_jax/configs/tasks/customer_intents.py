"""What a customer wants, in words: 11 intents of airline customers (MultiDoGO) by the likeliest label.

    python -m chinchilla_jax finetune --config tasks/customer_intents --from RUN --run-dir runs/intents \\
        --task.train AIRLINE/train.tsv.gz --task.valid AIRLINE/dev.tsv.gz --task.test AIRLINE/test.tsv.gz

To beat on the test: TF-IDF with logistic regression, accuracy 0.8929, macro-F1 0.8438. `--task.kind labels` trains a
head instead, whose figures have the same names. Of that one pass was run, on the first 12 layers of SmolLM2-135M
(`--tune.layers 12 --model.dtype bfloat16 --train.batch-size 4 --train.seq-len 128 --task.epochs 1
--optimizer.peak-lr 5e-4`), 3 CPU minutes: accuracy 0.8561, macro-F1 0.7660, which is not enough. Label words were run
for six steps from a tiny model of our own.
"""

from chinchilla_jax.config import Config, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA; the answer is one of the label names."""
    return Config(
        task=TaskConfig(kind="choice", text="utterance", label="intent", epochs=2, generate=500),
        tune=TuneConfig(method="lora"),
        train=TrainConfig(seq_len=128),
    )
