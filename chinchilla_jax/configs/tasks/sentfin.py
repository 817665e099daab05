"""Sentiment towards an entity in a financial headline (SEntFiN): positive, neutral or negative.

    python -m chinchilla_jax finetune --config tasks/sentfin --from RUN --run-dir runs/sentfin \\
        --task.train SENTFIN/train.jsonl.gz --task.valid SENTFIN/valid.jsonl.gz \\
        --task.test SENTFIN/test.jsonl.gz

9,424 pairs of entity and headline to train on, 1,871 to test. To beat: TF-IDF with logistic regression on
`entity : headline`, accuracy 0.7702, macro-F1 0.7686.

Not run at full size. Four fifths of a pass on the first 10 layers of SmolLM2-135M (`--tune.layers 10 --model.dtype
bfloat16 --train.batch-size 4 --train.seq-len 128 --task.epochs 0.8`), 311 steps: test accuracy 0.7050, macro-F1
0.6974, with the loss still falling. That is too little training, and below TF-IDF.
"""

from chinchilla_jax.config import Config, OptimizerConfig, TaskConfig, TrainConfig, TuneConfig


def config() -> Config:
    """LoRA on all matrices, and a label head."""
    return Config(
        tune=TuneConfig(method="lora", rank=16),
        task=TaskConfig(kind="labels", epochs=3),
        optimizer=OptimizerConfig(peak_lr=5e-4),
        train=TrainConfig(batch_size=4),
    )
