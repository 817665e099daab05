"""A ladder from 15 thousand to a million non-embedding parameters on one CPU core: a scaling law of one's own.

    python -m chinchilla_jax prepare --config configs/sweep_cpu.py
    python -m chinchilla_jax sweep   --config configs/sweep_cpu.py --run-dir runs/sweep \\
        --sizes 40e3 58e3 132e3 213e3 541e3 1.1e6 --budget 2.8e13
    python -m chinchilla_jax fit runs/sweep/runs.jsonl

No token is read twice. `docs/scaling/README.md` has the probe that the rate comes from, the law, and how its prediction
of a run of ten times the compute came out.
"""

from chinchilla_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def config() -> Config:
    """The largest size of the ladder; the others follow from it (`scaling/ladder.py`)."""
    return Config(
        model=ModelConfig(layers=5, d_model=128, heads=8, head_dim=16, d_ff=336, init_std=0.035),
        data=DataConfig(sources=("debian_docs",), store="data/debian", vocab_size=1024),
        optimizer=OptimizerConfig(peak_lr=2.3e-3, b2=0.99, final_lr_ratio=0.0),
        train=TrainConfig(seq_len=128, batch_size=8, log_every=20, compile_cache="data/compiled/sweep"),
        checkpoint=CheckpointConfig(every=1000, keep=1),
    )
