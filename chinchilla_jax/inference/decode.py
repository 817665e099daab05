"""Continue prompts with the cache: the prompt in one pass, then tokens in compiled chunks."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.inference.sampling import Sampling, sampler
from chinchilla_jax.model import cache as caches
from chinchilla_jax.model import transformer

CHUNK = 16  # tokens between two looks at the terminal
BUCKET = 32  # prompts are padded to multiples of this, so that a chat compiles a few programs and not one a turn


class Decoder:
    """The compiled functions for one shape of model and one way of sampling. `pieces` is the size of the tokenizer.

    `prepare(params)` gives the weights as `stream` wants them.
    """

    def __init__(self, cfg: ModelConfig, how: Sampling, pieces: int):
        self.prepare = jax.jit(partial(caches.split_layers, cfg=cfg))
        draw = sampler(how, pieces)

        def choose(split, hidden_BD, seeds_B, at):
            logits_BV = jnp.einsum(
                "vd,bd->vb", transformer.unembedding(split), hidden_BD, preferred_element_type=jnp.float32
            ).T  # the table from the left, along its rows: see model/linear.py
            return draw(logits_BV, jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), at))(seeds_B))

        def prefill(split, tokens_BL, segments_BL, seeds_B, capacity):
            cache = caches.empty(split, cfg, tokens_BL.shape[0], capacity)
            hidden_BLD, cache = caches.extend(split, tokens_BL, segments_BL, cache, cfg)
            return choose(split, hidden_BLD[:, -1], seeds_B, 0), cache

        def more(split, tokens_B, cache, seeds_B, at):
            def one(carry, i):
                tokens_B, cache = carry
                hidden_BLD, cache = caches.extend(
                    split, tokens_B[:, None], jnp.ones_like(tokens_B)[:, None], cache, cfg
                )
                return (choose(split, hidden_BLD[:, 0], seeds_B, i), cache), tokens_B

            (tokens_B, cache), made_CB = jax.lax.scan(one, (tokens_B, cache), at + 1 + jnp.arange(CHUNK))
            return tokens_B, cache, made_CB.T

        self._prefill = jax.jit(prefill, static_argnames="capacity")
        self._more = jax.jit(more, donate_argnums=2)

    def stream(
        self, split: dict[str, Any], prompts: Sequence[Sequence[int]], new: int, seeds: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """Blocks (B, at most 16) of the `new` tokens that continue each prompt; a row's seed decides its draws."""
        tokens_BL, segments_BL = pad_left(prompts, BUCKET)
        seeds_B = jnp.asarray(seeds, jnp.uint32)
        capacity = tokens_BL.shape[1] + -(-new // CHUNK) * CHUNK
        tokens_B, cache = self._prefill(split, tokens_BL, segments_BL, seeds_B, capacity=capacity)
        for at in range(0, new, CHUNK):
            tokens_B, cache, made_BC = self._more(split, tokens_B, cache, seeds_B, at)
            yield np.asarray(made_BC)[:, : new - at]


def pad_left(prompts: Sequence[Sequence[int]], bucket: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, L) and segments (1 for tokens, 0 for padding) with L the next multiple of `bucket`."""
    length = -(-max(len(prompt) for prompt in prompts) // bucket) * bucket
    tokens_BL = np.zeros((len(prompts), length), np.int32)
    segments_BL = np.zeros_like(tokens_BL)
    for row, prompt in enumerate(prompts):
        tokens_BL[row, length - len(prompt) :] = prompt
        segments_BL[row, length - len(prompt) :] = 1
    return tokens_BL, segments_BL
