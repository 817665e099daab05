"""Decoding with what was computed before: keys and values of every layer, kept between calls.

T is the cache's capacity; slot t holds the t-th token of a row. Rows of unequal length are padded on the left, so that
all rows write the same slots; padding carries segment 0, which no token's query matches. Keys are stored (B, G, T, K):
a head's keys lie together, which is what a single query reads.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.model.attention import MASKED
from chinchilla_jax.model.linear import dense, packed
from chinchilla_jax.model.positions import TABLES
from chinchilla_jax.model.stacks import NAMES, stacks_of
from chinchilla_jax.model.weights import is_node


class LayerCache(NamedTuple):
    """Keys and values of one layer, and its projected distances where positions are relative."""

    k_BGTK: jax.Array
    v_BGTK: jax.Array
    r_THK: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Cache:
    """`used` slots of every row are filled; `segments_BT` is 1 for tokens and 0 for padding and free slots."""

    layers: tuple[LayerCache, ...]
    segments_BT: jax.Array
    used: jax.Array


def split_layers(params: dict[str, Any], cfg: ModelConfig) -> dict[str, Any]:
    """The parameters ready for decoding: compute type, a packed tree a layer instead of stacked ones."""

    def one(path, w):
        # Only the projection out of attention contracts two dimensions, heads and their width.
        contract = 2 if path[-2].key == "out" else 1
        return packed(w, cfg.kernels, contract) if path[-1].key == "kernel" else w

    copy, layers = transformer.compute_copy(params, cfg), []
    for name, _, count in stacks_of(copy):
        for i in range(count):
            layer = jax.tree.map(lambda w_N, i=i: w_N[i], copy[name])
            layers.append(jax.tree_util.tree_map_with_path(one, layer, is_leaf=is_node))
    rest = {name: part for name, part in copy.items() if name not in NAMES}
    return {**rest, "blocks": tuple(layers)}


def empty(split: dict[str, Any], cfg: ModelConfig, batch: int, capacity: int) -> Cache:
    """A cache for `batch` rows of at most `capacity` tokens."""
    shape = (batch, cfg.kv_heads or cfg.heads, capacity, cfg.head_dim)
    distances = DISTANCES[cfg.positions]

    def one(layer):
        return LayerCache(jnp.zeros(shape, cfg.dtype), jnp.zeros(shape, cfg.dtype), distances(layer, cfg, capacity))

    layers = tuple(map(one, split["blocks"]))
    return Cache(layers, jnp.zeros((batch, capacity), jnp.int32), jnp.zeros((), jnp.int32))


def _projected_distances(layer: dict[str, Any], cfg: ModelConfig, capacity: int) -> jax.Array:
    table_TD = TABLES["relative"](cfg, None, capacity).astype(cfg.dtype)
    return dense(table_TD, layer["attention"]["positions"]["kernel"], cfg.kernels)


DISTANCES = {"rope": lambda layer, cfg, capacity: None, "relative": _projected_distances}


def extend(
    split: dict[str, Any], tokens_BL: jax.Array, segments_BL: jax.Array, cache: Cache, cfg: ModelConfig, *, block=False
):
    """Append L tokens to every row: hidden states (B, L, D) after the last norm, and the longer cache.

    With `block` the new tokens see each other in both directions, as those of a `Batch.blocks` number do.
    """
    L, T = tokens_BL.shape[1], cache.segments_BT.shape[1]
    slots_L = cache.used + jnp.arange(L)
    segments_BT = jax.lax.dynamic_update_slice_in_dim(cache.segments_BT, segments_BL, cache.used, axis=1)
    last_L = jnp.broadcast_to(slots_L[-1], L) if block else slots_L
    mask_BLT = (jnp.arange(T) <= last_L[:, None]) & (segments_BT[:, None, :] == segments_BL[:, :, None])
    positions_BL = jnp.broadcast_to(slots_L, tokens_BL.shape)  # only differences count, so padding may shift them
    tables = TABLES[cfg.positions](cfg, positions_BL, L)
    x_BLD, layers = transformer.embed(split, tokens_BL, cfg), []
    for layer, kept in zip(split["blocks"], cache.layers):
        block = transformer.Block(cfg, _attend(kept, cache.used, slots_L, mask_BLT))
        x_BLD, (kept, _) = block.apply({"params": layer}, x_BLD, tables, None)
        layers.append(kept)
    x_BLD = transformer.Norm(cfg).apply({"params": split["norm"]}, x_BLD)
    return x_BLD, Cache(tuple(layers), segments_BT, cache.used + L)


def _attend(kept: LayerCache, used, slots_L, mask_BLT):
    """Attention of new queries over the cache that the new keys and values have joined."""

    def attend(q_BLHK, k_BLGK, v_BLGK, relative):
        B, L, H, K = q_BLHK.shape
        G, T = kept.k_BGTK.shape[1:3]
        k_BGTK = jax.lax.dynamic_update_slice_in_dim(kept.k_BGTK, k_BLGK.swapaxes(1, 2), used, axis=2)
        v_BGTK = jax.lax.dynamic_update_slice_in_dim(kept.v_BGTK, v_BLGK.swapaxes(1, 2), used, axis=2)
        q_BLGMK = (q_BLHK * K**-0.5).reshape(B, L, G, H // G, K)
        s_BGMLT = jnp.einsum("blgmk,bgtk->bgmlt", q_BLGMK, k_BGTK, preferred_element_type=jnp.float32)
        if relative is not None:
            qr_BLHK = relative.qr_BLHK * K**-0.5
            s_BHLT = jnp.einsum("blhk,thk->bhlt", qr_BLHK, kept.r_THK, preferred_element_type=jnp.float32)
            distance_LT = jnp.clip(slots_L[:, None] - jnp.arange(T), 0, T - 1)
            moved_BHLT = jnp.take_along_axis(s_BHLT, distance_LT[None, None], axis=-1)
            s_BGMLT += moved_BHLT.reshape(s_BGMLT.shape)
        p_BGMLT = jax.nn.softmax(jnp.where(mask_BLT[:, None, None], s_BGMLT, MASKED), axis=-1)
        mixed_BLGMK = jnp.einsum("bgmlt,bgtk->blgmk", p_BGMLT.astype(v_BGTK.dtype), v_BGTK)
        return mixed_BLGMK.reshape(B, L, H, K), LayerCache(k_BGTK, v_BGTK, kept.r_THK)

    return attend
