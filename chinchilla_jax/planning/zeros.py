"""What zeros leave a model worth: the zeros that a config makes, and the dense model that a sparse one equals."""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax import config as settings
from chinchilla_jax.config import PENALTIES, Config, SparsityConfig, closest, require
from chinchilla_jax.scaling.law import Surface, positive

AT_ONCE = ("n_m", "rigl", "set")  # all zeros from the start of their window on; the others make them by and by

# Frantar et al. 2024 (arXiv:2309.08520), T5 on C4, 1.3 M to 85 M non-zeros: a_S, b_S, c_S, b_N, coefficient and
# exponent of D, limit; N in millions of non-zeros, D in 1e5 steps of 65,536 tokens. The refit is the optimum of the
# same objective on the same 48 points, which do not pin b_S down: hence a range and not a number.
FRANTAR = {
    "frantar": (0.5678, 0.7216, 1.5227, 0.2451, 0.6336, 0.2027, 0.6507),
    "frantar-refit": (0.436, 1.345, 1.695, 0.232, 0.418, 0.385, 0.830),
}
COMPRESSION = {0.5: 0.871}  # Frantar et al. 2025 (arXiv:2502.16440): dense equivalent, measured at 50 % alone
AGREED = 0.8  # sparsity beyond which the laws part


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
    return sparse_equivalent(1.0, share, (cfg.begin, cfg.begin if cfg.method in AT_ONCE else cfg.stop)).value


def frantar(S: float, name: str = "frantar") -> Surface:
    """L(S, N, D) = (a_S (1 - S)^b_S + c_S) N^-b_N + (a_D / D)^b_D + c at a sparsity S; N counts non-zeros."""
    require(name in FRANTAR, f"no sparse law {name!r}{closest(name, FRANTAR)}; known are {', '.join(FRANTAR)}")
    _sparsity(S)
    a, b, c, by_N, scale, by_D, limit = FRANTAR[name]
    size = np.log(a * (1 - S) ** b + c) + by_N * np.log(1e6)
    return Surface(float(size), float(np.log(scale) + by_D * np.log(1e5 * 65536)), float(np.log(limit)), by_N, by_D)


@dataclass(frozen=True)
class Equivalent:
    """Dense parameters that a sparse model is worth: median and range of the published laws, and each.

    `agreed` is false beyond 80 % sparsity, where the laws part.
    """

    value: float
    low: float
    high: float
    laws: dict[str, float]
    agreed: bool


def sparse_equivalent(N: float, S: float, schedule: tuple[float, float] = (0.25, 0.75)) -> Equivalent:
    """Dense parameters that N parameters (zeros counted) are worth once pruned to sparsity S, at equal tokens.

    `schedule` is the shares of the run between which a cubic schedule prunes; it enters `average` alone, and `value` is
    the median of three laws (four at S = 0.5), which it often does not move. The step costs the dense N throughout
    where no kernel skips zeros: sparsity is paid for in training and paid back in use.
    """
    positive(N=N)
    found = {name: N * _frantar(S, name) for name in FRANTAR}
    found["average"] = average_params(N, S, *schedule)
    found |= {"compression": N * COMPRESSION[S]} if S in COMPRESSION else {}
    values = list(found.values())
    return Equivalent(float(np.median(values)), min(values), max(values), found, S <= AGREED)


def _frantar(S: float, name: str) -> float:
    """Dense over total size at which the first terms are equal."""
    pruned, dense = frantar(S, name), frantar(0.0, name)
    return (1 - S) * float(np.exp((dense.a - pruned.a) / dense.alpha))


def average_params(N: float, S: float, start: float = 0.25, stop: float = 0.75) -> float:
    """Mean non-zeros over a run whose sparsity rises by the cubic schedule: N (1 - S (3/4 (stop - start) + 1 - stop)).

    Jin et al. 2025 (arXiv:2501.12486) find Chinchilla's law to hold with this N.
    """
    positive(N=N)
    _sparsity(S)
    require(0 <= start <= stop <= 1, f"schedule {start:g} to {stop:g}: shares of the run, in order")
    return N * (1 - S * (0.75 * (stop - start) + 1 - stop))


def _sparsity(S: float) -> None:
    require(0 <= S < 1, f"sparsity {S:g} must lie in [0, 1)")
