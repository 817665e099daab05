"""Named shapes: the whole of Chinchilla's Table A9, Chinchilla and Gopher, and modern shapes.

Standard library only. The parameter tree of a `chinchilla` shape with i = heads * head_dim holds exactly
layers * (5 d i + 2 d f + 5 i + 2 d + f) + d + V d
numbers: q, k, v, out and relative-position projections; biases on q, k, v, the two of Transformer-XL and the hidden
layer; two norm scales a block and one at the end; one tied table. It gives all 50 printed millions of Table A9, and
70.06 B for Chinchilla (Hoffmann et al. 2022, arXiv:2203.15556).
"""

import dataclasses

from chinchilla_jax.config import ModelConfig, closest
from chinchilla_jax.errors import UserError

FAMILIES = {
    "chinchilla": {"positions": "relative", "mlp": "gelu", "biases": True, "tied": True},
    "modern": {"positions": "rope", "mlp": "swiglu", "biases": False},
}

# d_model, d_ff, head_dim, heads, layers by printed millions of parameters: Hoffmann et al. 2022, Table A9.
TABLE_A9 = {
    44: (512, 2048, 64, 8, 8),
    57: (576, 2304, 64, 9, 9),
    74: (640, 2560, 64, 10, 10),
    90: (640, 2560, 64, 10, 13),
    106: (640, 2560, 64, 10, 16),
    117: (768, 3072, 64, 12, 12),
    140: (768, 3072, 64, 12, 15),
    163: (768, 3072, 64, 12, 18),
    175: (896, 3584, 64, 14, 14),
    196: (896, 3584, 64, 14, 16),
    217: (896, 3584, 64, 14, 18),
    251: (1024, 4096, 64, 16, 16),
    278: (1024, 4096, 64, 16, 18),
    306: (1024, 4096, 64, 16, 20),
    425: (1280, 5120, 128, 10, 18),
    489: (1280, 5120, 128, 10, 21),
    509: (1408, 5632, 128, 11, 18),
    552: (1280, 5120, 128, 10, 24),
    587: (1408, 5632, 128, 11, 21),
    632: (1536, 6144, 128, 12, 19),
    664: (1408, 5632, 128, 11, 24),
    724: (1536, 6144, 128, 12, 22),
    816: (1536, 6144, 128, 12, 25),
    893: (1792, 7168, 128, 14, 20),
    1018: (1792, 7168, 128, 14, 23),
    1143: (1792, 7168, 128, 14, 26),
    1266: (2048, 8192, 128, 16, 22),
    1424: (2176, 8704, 128, 17, 22),
    1429: (2048, 8192, 128, 16, 25),
    1593: (2048, 8192, 128, 16, 28),
    1609: (2176, 8704, 128, 17, 25),
    1731: (2304, 9216, 128, 18, 24),
    1794: (2176, 8704, 128, 17, 28),
    2007: (2304, 9216, 128, 18, 28),
    2283: (2304, 9216, 128, 18, 32),
    2298: (2560, 10240, 128, 20, 26),
    2639: (2560, 10240, 128, 20, 30),
    2980: (2560, 10240, 128, 20, 34),
    3530: (2688, 10752, 128, 22, 36),
    3802: (2816, 11264, 128, 22, 36),
    4084: (2944, 11776, 128, 22, 36),
    4516: (3072, 12288, 128, 24, 36),
    6796: (3584, 14336, 128, 28, 40),
    9293: (4096, 16384, 128, 32, 42),
    11452: (4352, 17408, 128, 32, 47),
    12295: (4608, 18432, 128, 36, 44),
    12569: (4608, 18432, 128, 32, 47),
    13735: (4864, 19456, 128, 32, 47),
    14940: (4992, 19968, 128, 32, 49),
    16183: (5120, 20480, 128, 40, 47),
}


def _chinchilla(d_model: int, d_ff: int, head_dim: int, heads: int, layers: int) -> dict:
    shape = {"d_model": d_model, "d_ff": d_ff, "head_dim": head_dim, "heads": heads, "layers": layers}
    return {**FAMILIES["chinchilla"], **shape, "vocab_size": 32000}


def _modern(layers: int, d_model: int, heads: int, d_ff: int, **rest) -> dict:
    shape = {"layers": layers, "d_model": d_model, "heads": heads, "d_ff": d_ff, "head_dim": 128}
    return {**FAMILIES["modern"], "vocab_size": 50304, **shape, **rest}


PRESETS = {
    **{f"chinchilla-{millions}m": _chinchilla(*shape) for millions, shape in TABLE_A9.items()},
    "chinchilla-70b": _chinchilla(8192, 32768, 128, 64, 80),
    "gopher-280b": _chinchilla(16384, 65536, 128, 128, 80),
    "modern-150m": _modern(12, 768, 6, 3072),
    "modern-1b": _modern(16, 2048, 16, 8192),
    "modern-8b": _modern(32, 4096, 32, 14336, kv_heads=8, vocab_size=128256, tied=False, rope_theta=500000.0),
}


def settings(name: str) -> dict:
    """The model settings of a preset; an unknown name is an error that says which there are."""
    if name not in PRESETS:
        first, *_, last = TABLE_A9
        others = ", ".join(list(PRESETS)[len(TABLE_A9) :])
        raise UserError(
            f"--model.preset: unknown preset {name!r}{closest(name, PRESETS)}; there are {others}, and of Table A9 "
            f"chinchilla-{first}m to chinchilla-{last}m"
        )
    return {"preset": name, **PRESETS[name]}


def preset(name: str, **changes) -> ModelConfig:
    """The `ModelConfig` called `name`, with single settings changed."""
    return dataclasses.replace(ModelConfig(), **{**settings(name), **changes})
