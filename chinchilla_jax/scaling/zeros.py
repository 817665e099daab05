"""The zeros that a plan counts on: as asked for, as the config makes them, and what they leave a model worth."""

from chinchilla_jax import config as settings
from chinchilla_jax.config import PENALTIES, Config, SparsityConfig, require
from chinchilla_jax.scaling.corrections import sparse_equivalent

AT_ONCE = ("n_m", "rigl", "set")  # all zeros from the start of their window on; the others make them by and by


def sparse(config: Config, share: float) -> Config:
    """`config` with a `share` of zeros by the method that it names, else by magnitude; 0 leaves it as it is.

    `UserError` where its pattern makes another share.
    """
    if not share:
        return config
    method, pattern = config.sparsity.method, config.sparsity.pattern
    made = settings.replace(config, {"sparsity.method": "magnitude" if method == "off" else method})
    if own := made.sparsity.implied:
        require(own == share, f"--sparsity {share:g}, but --sparsity.pattern {pattern} makes {own:g}; leave one out")
        return made
    return made if method in PENALTIES else settings.replace(made, {"sparsity.target": share})


def zeros(cfg: SparsityConfig) -> float:
    """Share of zeros at the end of a run; 0 also where nobody knows it beforehand."""
    if cfg.method in ("off", *PENALTIES):
        return 0.0
    return cfg.implied or cfg.target


def worth(cfg: SparsityConfig, share: float) -> float:
    """Parameters of the dense model over those of one with a `share` of zeros that `cfg` makes."""
    return sparse_equivalent(1.0, share, (cfg.start, cfg.start if cfg.method in AT_ONCE else cfg.stop)).value
