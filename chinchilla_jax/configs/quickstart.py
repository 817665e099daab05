"""Shakespeare on a laptop CPU: the run of `make quickstart`.

    python -m chinchilla_jax prepare  --config quickstart
    python -m chinchilla_jax pretrain --config quickstart --run-dir runs/quickstart

1.1 million parameters read 4.1 million tokens, two and a half times through 34 plays; the two held-out plays end near
2.0 bits per byte, where xz -9e needs 2.6. Five minutes on two cores.
"""

from chinchilla_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def config() -> Config:
    """1.1 million parameters on Shakespeare."""
    return Config(
        model=ModelConfig(layers=4, d_model=128, heads=4, head_dim=32, d_ff=352),
        data=DataConfig(sources=("shakespeare",), fallback="docstrings", store="data/quickstart", vocab_size=2048),
        optimizer=OptimizerConfig(peak_lr=4e-3, warmup_steps=50),
        train=TrainConfig(steps=1000, seq_len=256, batch_size=16, eval_every=250, sample_every=500, log_every=5),
        checkpoint=CheckpointConfig(every=250),
    )
