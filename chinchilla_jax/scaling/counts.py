"""Parameters and FLOPs of a model by formula, without a trace of it: exact for parameters, by name for FLOPs.

Letters: D model, H heads, G key/value heads, K head width, F hidden, V vocabulary, N layers, L length.
"""

from collections.abc import Callable
from typing import NamedTuple

from chinchilla_jax.config import ModelConfig, closest, require
from chinchilla_jax.errors import UserError


class Sizes(NamedTuple):
    """Numbers of a model: in all, in a layer, in a layer's matrices that meet tokens, and in one table."""

    total: int
    layer: int
    met: int
    table: int


def sizes(cfg: ModelConfig) -> Sizes:
    """What `model.transformer` builds."""
    D, F, q, kv = cfg.d_model, cfg.d_ff, cfg.heads * cfg.head_dim, (cfg.kv_heads or cfg.heads) * cfg.head_dim
    inward = 2 if cfg.gated else 1
    met = D * (2 * q + 2 * kv) + (inward + 1) * D * F
    relative = cfg.positions == "relative"
    layer = met + 2 * D + relative * (D * q + 2 * q) + cfg.qk_norm * 2 * cfg.head_dim
    layer += (cfg.biases or cfg.attention_biases) * (q + 2 * kv) + cfg.biases * inward * F
    table = cfg.vocab_size * D
    return Sizes(cfg.layers * layer + D + table * (1 if cfg.tied else 2), layer, met, table)


def parameters(cfg: ModelConfig) -> int:
    """Numbers in the whole parameter tree, a tied table counted once."""
    return sizes(cfg).total


def tables(cfg: ModelConfig) -> int:
    """Numbers in the embedding table and, where it is another, the output table."""
    return sizes(cfg).table * (1 if cfg.tied else 2)


def non_embedding(cfg: ModelConfig) -> int:
    """Numbers outside the tables, as Kaplan et al. 2020 and Step Law count."""
    return parameters(cfg) - tables(cfg)


def matmul_parameters(cfg: ModelConfig) -> int:
    """Weights that meet every token in a matrix product: those of the blocks and the output table, not the look-up."""
    n = sizes(cfg)
    # The relative-position projection meets distances and not tokens, yet is counted with them, as Table A9's N does.
    relative = (cfg.positions == "relative") * cfg.d_model * cfg.heads * cfg.head_dim
    return cfg.layers * (n.met + relative) + n.table


def _attention(cfg: ModelConfig, L: int) -> int:
    """Training FLOPs a token of scores and mixing over a whole window: Chowdhery et al. 2022, appendix B."""
    return 12 * cfg.layers * cfg.heads * cfg.head_dim * L


def _hoffmann(cfg: ModelConfig, L: int) -> int:
    """Hoffmann et al. 2022, appendix F, a token: three forward passes of the layers, the softmax counted.

    Without the embeddings and logits of the text this gives the paper's own Table A4, and with them it does not.
    """
    q = cfg.heads * cfg.head_dim
    return 3 * cfg.layers * (2 * sizes(cfg).met + 4 * L * q + 3 * cfg.heads * L)


# Training FLOPs a token (forward and backward) of a model at windows of L tokens.
ACCOUNTINGS: dict[str, Callable[[ModelConfig, int], float]] = {
    "6ND_total": lambda cfg, L: 6 * parameters(cfg),
    "6ND_nonembed": lambda cfg, L: 6 * non_embedding(cfg),  # Kaplan et al. 2020
    "matmul": lambda cfg, L: 6 * matmul_parameters(cfg),  # Porian et al. 2024
    "palm": lambda cfg, L: 6 * matmul_parameters(cfg) + _attention(cfg, L),
    "palm_causal": lambda cfg, L: 6 * matmul_parameters(cfg) + _attention(cfg, L) / 2,  # no scores of what is to come
    "deepseek": lambda cfg, L: cfg.layers * cfg.d_model * (72 * cfg.d_model + 12 * L),  # M of arXiv:2401.02954
    "hoffmann_table": _hoffmann,
    "hoffmann_text": lambda cfg, L: _hoffmann(cfg, L) + 12 * sizes(cfg).table,
}


def flops(cfg: ModelConfig, seq_len: int, accounting: str = "palm") -> float:
    """Training FLOPs a token under a named accounting; `UserError` for a name that is not in `ACCOUNTINGS`.

    They differ by tens of per cent, more the smaller the model: never compare numbers of two of them.
    """
    if accounting not in ACCOUNTINGS:  # the search for the closest takes longer than all else
        raise UserError(f"no accounting {accounting!r}{closest(accounting, ACCOUNTINGS)}: {', '.join(ACCOUNTINGS)}")
    require(seq_len > 0, f"a window of {seq_len} tokens has no FLOPs; give at least 1")
    return float(ACCOUNTINGS[accounting](cfg, seq_len))


def flops_per_token(cfg: ModelConfig, seq_len: int, causal: bool = False) -> float:
    """Training FLOPs a token: 6 per matmul weight + 12 N H K L for attention (PaLM), half of that where causal."""
    return flops(cfg, seq_len, "palm_causal" if causal else "palm")
