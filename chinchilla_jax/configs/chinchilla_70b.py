"""Chinchilla itself: 70 billion parameters on 1.4 trillion tokens, the batch doubled from 1.5M to 3M tokens midway.

    python -m chinchilla_jax pretrain --config chinchilla_70b --dry-run --topology v5p:8x8x4

64 shards leave 128 numbers of the model dimension to a chip, a TPU's tile: smaller ones are gathered by a sum over
zeros, at twice the traffic. What 64 leave of a slice shares heads and hidden units: 4 chips of 256, 8 of 512. Figures
for several slices: docs/aot.md.

Shape, tokens, peak rate, tenfold cosine decay and batch ramp are those of Hoffmann et al. 2022 (arXiv:2203.15556); the
betas, weight decay and clipping, which the paper does not give, are this project's defaults; the warm-up is Gopher's.
"""

from chinchilla_jax.config import Config, DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.model.presets import preset

LENGTH, WINDOWS = 2048, 768
HALF = int(0.7e12) // (LENGTH * WINDOWS)  # steps that spend half of the tokens at the first batch size


def config() -> Config:
    """Chinchilla's shape, data and schedule."""
    return Config(
        model=preset("chinchilla-70b"),
        data=DataConfig(sources=("corpus",), store="data/corpus"),
        optimizer=OptimizerConfig(peak_lr=1e-4, warmup_steps=1500),
        mesh=MeshConfig(data=1, fsdp=64, tensor=-1),
        train=TrainConfig(
            steps=HALF + HALF // 2,
            seq_len=LENGTH,
            batch_size=WINDOWS,
            batch_ramp=((HALF, 2 * WINDOWS),),
            microbatches=3,
        ),
    )
