"""A model that can be built for a number of parameters: widths that suit the hardware, whole layers, exact counts."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from chinchilla_jax.config import ModelConfig, require
from chinchilla_jax.model.presets import FAMILIES
from chinchilla_jax.scaling.counts import sizes

# Width over layers by total parameters, interpolated between: the quickstart's shape, then Hoffmann et al. 2022,
# Table A9 and table 4 (44M: 64, 16B: 109, 70B: 102).
ASPECTS = ((1e5, 16.0), (1e6, 32.0), (4.4e7, 64.0), (1.6e10, 105.0), (1e13, 128.0))
# Largest share of the parameters that a table may have before a smaller vocabulary is taken (44M of Table A9: 0.37).
TABLE_SHARE = 0.4
VOCABULARIES = (32000, 16384, 8192, 4096, 2048, 1024, 512)
GROUPED, GROUPS = 4096, 8  # width from which heads of keys and values are shared, and their number
LARGEST = 1e16  # parameters; shapes beyond take long to look through, and nothing holds them
# Windows by total parameters: short ones where attention over long ones would cost more than the layers.
LENGTHS = ((2e6, 256), (2e7, 512), (2e8, 1024), (math.inf, 2048))


def vocabulary(params: float) -> int:
    """Pieces of a tokenizer that suits a model of about `params` parameters."""
    for pieces in VOCABULARIES:
        if pieces * width_guess(params) <= TABLE_SHARE * params:
            return pieces
    return VOCABULARIES[-1]


def width_guess(params: float) -> float:
    """d_model at the usual aspect: params ~ 12 d^2 layers, layers = d / aspect."""
    return (params * aspect(params) / 12) ** (1 / 3)


def aspect(params: float) -> float:
    """Usual width over layers for a size, by interpolation in log N."""
    params_of, aspects = zip(*ASPECTS)
    return float(np.interp(math.log(params), np.log(params_of), aspects))


def length(params: float) -> int:
    """Tokens of a window that suit a model of about `params` parameters."""
    return next(tokens for limit, tokens in LENGTHS if params <= limit)


def realise(
    params: float,
    count: Callable[[ModelConfig], float],
    *,
    family: str = "modern",
    vocab_size: int = 0,
    divisor: int = 1,
) -> ModelConfig:
    """The shape whose `count` (total, or whatever a law counts) comes closest to `params` at a usual aspect.

    `divisor` is what the mesh needs d_model to be a multiple of. `UserError` where no shape comes within a factor of 2.
    """
    require(params <= LARGEST, f"{params:.3g} parameters are more than any machine holds; ask for less")
    pieces = vocab_size or vocabulary(params)
    best, cost = None, math.inf
    for cfg in _candidates(params, family, pieces, divisor):
        ratio = abs(math.log(count(cfg) / params))
        off = abs(math.log(cfg.d_model / cfg.layers / aspect(params)))
        if 8 * ratio + off < cost:
            best, cost = cfg, 8 * ratio + off
    require(
        best is not None and 0.5 <= count(best) / params <= 2,
        f"no model of about {params:.3g} parameters has a vocabulary of {pieces} and a width that {divisor} divides; "
        "set a smaller --model.vocab-size or --mesh.fsdp, or a larger budget",
    )
    return best


def _candidates(params: float, family: str, pieces: int, divisor: int) -> Iterator[ModelConfig]:
    """Shapes round the usual width, with the number of layers that comes next to the wanted size."""
    guess = width_guess(params)
    step = math.lcm(_unit(guess), divisor)
    first = max(1, math.floor(guess / 3 / step))
    for d_model in range(first * step, math.ceil(3 * guess) + 2 * step, step):
        cfg = _shape(family, 1, d_model, pieces)
        if cfg is None:
            continue
        one, two = (sizes(_shape(family, n, d_model, pieces)).total for n in (1, 2))
        layers = max(1, round(1 + (params - one) / (two - one)))
        for n in {layers, max(1, layers - 1), layers + 1}:
            yield _shape(family, n, d_model, pieces)


def _unit(width: float) -> int:
    """Multiples that widths of a size come in: a TPU's tile of 128 where size allows, and heads that a mesh divides."""
    units = ((48, 8), (192, 16), (384, 32), (768, 64), (2560, 128), (8192, 512), (math.inf, 1024))
    return next(unit for limit, unit in units if width <= limit)


def _shape(family: str, layers: int, d_model: int, pieces: int) -> ModelConfig | None:
    """The family's proportions: heads that fill the width, and the hidden layer of 8/3 (gated) or 4 widths."""
    usual = 128 if d_model >= 1024 else 64 if d_model >= 256 else 32 if d_model >= 64 else 16
    fits = [k for k in range(8, min(d_model, 128) + 1, 8) if d_model % k == 0]
    if not fits:
        return None
    head_dim = min(fits, key=lambda k: abs(math.log(k / usual)))
    unit = min(_unit(d_model), 128)
    d_ff = 4 * d_model if family == "chinchilla" else max(unit, round(8 * d_model / 3 / unit) * unit)
    heads = d_model // head_dim
    # Models of 7 B and more share keys and values among queries in practice, to eight heads (Llama 3, Qwen 3).
    groups = math.gcd(heads, GROUPS) if family == "modern" and d_model >= GROUPED else 0
    shape = {
        "layers": layers,
        "d_model": d_model,
        "heads": heads,
        "kv_heads": groups,
        "head_dim": head_dim,
        "d_ff": d_ff,
    }
    return ModelConfig(**FAMILIES[family], **shape, vocab_size=pieces)
