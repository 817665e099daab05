"""Parameters and FLOPs of a model, exact and by formula."""

import math

import jax

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.model import transformer


def parameters(cfg: ModelConfig) -> int:
    """Numbers in the whole parameter tree, a tied table counted once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(transformer.abstract(cfg)))


def tables(cfg: ModelConfig) -> int:
    """Numbers in the embedding table and, where it is another, the output table."""
    return cfg.vocab_size * cfg.d_model * (1 if cfg.tied else 2)


def matmul_parameters(cfg: ModelConfig) -> int:
    """Weights that meet every token in a matrix product: those of the blocks and the output table, not the look-up."""
    kernels = transformer.abstract(cfg)["blocks"]
    flat = jax.tree_util.tree_flatten_with_path(kernels)[0]
    # The relative-position projection meets distances and not tokens, yet is counted with them, as Table A9's N does.
    blocks = sum(math.prod(leaf.shape) for path, leaf in flat if path[-1].key == "kernel")
    return blocks + cfg.vocab_size * cfg.d_model


def flops_per_token(cfg: ModelConfig, seq_len: int, causal: bool = False) -> float:
    """Training FLOPs a token: 6 per matmul weight + 12 N H K L for attention (PaLM), half of that where causal."""
    attention = 12 * cfg.layers * cfg.heads * cfg.head_dim * seq_len
    return 6.0 * matmul_parameters(cfg) + (attention / 2 if causal else attention)
