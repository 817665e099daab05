"""Shakespeare on a laptop CPU: the run of `make quickstart`.

python -m chinchilla_jax prepare  --config configs/quickstart.py
python -m chinchilla_jax pretrain --config configs/quickstart.py --run-dir runs/quickstart
"""

from chinchilla_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def config() -> Config:
    return Config(
        model=ModelConfig(layers=4, d_model=256, heads=4, head_dim=64, d_ff=704),
        data=DataConfig(sources=("shakespeare",), store="data/shakespeare", vocab_size=4096, valid_fraction=0.05),
        optimizer=OptimizerConfig(peak_lr=2e-3, warmup_steps=50),
        train=TrainConfig(steps=600, seq_len=256, batch_size=16, eval_every=200),
    )
