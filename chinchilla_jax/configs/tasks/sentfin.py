"""Sentiment towards an entity in a financial headline (SEntFiN): positive, neutral or negative.

    python -m chinchilla_jax finetune --config tasks/sentfin --from RUN --run-dir runs/sentfin \\
        --task.train SENTFIN/train.jsonl.gz --task.valid SENTFIN/valid.jsonl.gz \\
        --task.test SENTFIN/test.jsonl.gz

9,424 pairs of entity and headline to train on, 1,871 to test. To beat: TF-IDF with logistic regression on
`entity : headline`, accuracy 0.7702, macro-F1 0.7686.

RUN was SmolLM2-135M, imported from its GGUF, with `--model.dtype bfloat16` on a CPU with AMX: 816 steps of 4 rows of
128 tokens, 28 CPU minutes with validation and test. Test accuracy **0.8648**, macro-F1 0.8662, ECE 0.051; validation
0.8374 and 0.8636 after each pass. One seed. One pass (`--task.epochs 1`), in float32, with bos before a text as now:
0.8231 and 0.8248 in 15 minutes on two cores; validation 0.8317.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a label head."""
    return Config(
        tune=TuneConfig(method="lora", rank=16),
        task=TaskConfig(kind="labels", epochs=2),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(batch_size=4, seq_len=128),
    )
