"""The run that `tools/ablate.py` varies: 1.05 million parameters beside the table, 10 million tokens of English.

    python -m chinchilla_jax prepare  --config ablation
    python -m chinchilla_jax pretrain --config ablation --run-dir runs/ablate/plain-s0

One CPU core needs 20 minutes and comes to about 3.0 nats a token; no token is read twice.
"""

from chinchilla_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def config() -> Config:
    """Two wide layers on Debian's documentation."""
    return Config(
        model=ModelConfig(layers=2, d_model=208, heads=4, head_dim=52, d_ff=560),
        data=DataConfig(sources=("debian_docs",), store="data/debian", vocab_size=1024),
        optimizer=OptimizerConfig(peak_lr=4e-3, warmup_steps=100),
        train=TrainConfig(steps=2442, seq_len=128, batch_size=32, eval_every=0, log_every=10),
        checkpoint=CheckpointConfig(every=407, keep=6),
    )
