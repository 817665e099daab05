"""Learning rate by step. Steps count from 0; step `steps - 1` is the last and ends exactly on the final rate."""

import jax.numpy as jnp
import optax

from chinchilla_jax.config import OptimizerConfig


def _cosine(t, cfg: OptimizerConfig):
    return cfg.final_lr_ratio + (1 - cfg.final_lr_ratio) * 0.5 * (1 + jnp.cos(jnp.pi * t))


def _wsd(t, cfg: OptimizerConfig):
    decayed = jnp.clip((t - (1 - cfg.decay_fraction)) / cfg.decay_fraction, 0, 1)
    return 1 - (1 - cfg.final_lr_ratio) * decayed


def _constant(t, cfg: OptimizerConfig):
    return jnp.ones_like(t)


# Share of the peak after warm-up, t in (0, 1] being the share of the remaining run done when the step ends.
SHAPES = {"cosine": _cosine, "wsd": _wsd, "constant": _constant}


def schedule(cfg: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then the shape over what is left of `steps`; wsd's decay ends with the run."""
    warmup = cfg.warmup_steps

    def rate(step):
        done = jnp.asarray(step, jnp.float32) + 1
        t = jnp.clip((done - warmup) / max(1, steps - warmup), 0, 1)
        return cfg.peak_lr * jnp.where(done < warmup, done / max(1, warmup), SHAPES[cfg.schedule](t, cfg))

    return rate
