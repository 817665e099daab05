"""A scaling law of one's own on one CPU core: 33 runs of 15 thousand to a million non-embedding parameters.

    python -m chinchilla_jax prepare --config sweep_cpu
    python -m chinchilla_jax sweep --config sweep_cpu --run-dir runs/sweep-0 \
        --sizes 40e3 80e3 132e3 207e3 541e3 1.1e6 --budget 1.05e13 --least-steps 300
    python -m chinchilla_jax sweep --config sweep_cpu --run-dir runs/sweep-1 --train.seed 1 \
        --sizes 40e3 58e3 132e3 260e3 541e3 1.1e6 --budget 3e13
    cat runs/sweep-0/runs.jsonl runs/sweep-1/runs.jsonl > runs/law.jsonl
    python -m chinchilla_jax fit runs/law.jsonl --form kaplan --out runs/law

A quarter of an hour each on one core (`taskset -c 0`, XLA_FLAGS=--xla_cpu_multi_thread_eigen=false). No token is read
twice. Expect L = (5.7e6 / N^0.68 + 1.9e9 / D)^0.173 nats a token. `docs/scaling/README.md` has the probe that the rate
comes from, the law, and what it predicted for a run of 10.5 times the compute: 2.954 nats a token; it came to 2.998.
"""

from chinchilla_jax.config import CheckpointConfig, Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def config() -> Config:
    """The largest size of the ladder; the others follow from it (`planning/ladder.py`)."""
    return Config(
        model=ModelConfig(layers=5, d_model=128, heads=8, head_dim=16, d_ff=336, init_std=0.035),
        data=DataConfig(sources=("debian_docs",), store="data/debian", vocab_size=1024),
        optimizer=OptimizerConfig(peak_lr=2.3e-3, b2=0.99, final_lr_ratio=0.0),
        train=TrainConfig(seq_len=128, batch_size=8, log_every=20, compile_cache="data/compiled/sweep"),
        checkpoint=CheckpointConfig(every=1000, keep=1),
    )
