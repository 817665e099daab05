"""Windows of 4096 tokens, 128 of them a step: modern-150m on the Debian documentation (132 MB of English).

python -m chinchilla_jax prepare  --config long_context
python -m chinchilla_jax pretrain --config long_context --run-dir runs/long_context

A billion tokens, some thirty times through the corpus: 1.3e18 FLOPs. Compiled ahead of time for 16 chips of TPU v5e
(`--dry-run --topology v5e:4x4`): 12.2 GB a chip, about 20 minutes at 40 % of the peak. Not trained yet: what it
reaches is not known.
"""

from chinchilla_jax.config import Config, DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.model.presets import preset


def config() -> Config:
    """modern-150m on windows of 4096 tokens."""
    return Config(
        model=preset("modern-150m", vocab_size=32000),
        data=DataConfig(sources=("debian_docs",), store="data/debian_docs"),
        optimizer=OptimizerConfig(peak_lr=6e-4, warmup_steps=100),
        mesh=MeshConfig(data=1, fsdp=-1),
        train=TrainConfig(steps=2000, seq_len=4096, batch_size=128, eval_every=250),
    )
