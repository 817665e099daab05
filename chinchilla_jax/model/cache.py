"""Decoding with what was computed before: keys and values of every layer, kept between calls.

S slots, each a text of its own with its own length; T is the capacity of a slot. Position t of a text is kept at t, so
what lies behind a text's end is never seen: the next tokens overwrite it before their own queries look that far. Keys
are stored (J, T, K), where J counts the G heads of slot 0, then those of slot 1 and so on, layer after layer: a head's
keys lie together, which is what a single query reads, and as one dimension: of (S, G, T, K) XLA:CPU makes copies to
change the layout. Layers lie in stacks, each gone through by one loop; on a CPU and an NVIDIA card each layer is one.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.model.attention import MASKED, attention
from chinchilla_jax.model.int8 import Packed8, packed8
from chinchilla_jax.model.linear import Packed, dense, joined, outputs_shared, packed
from chinchilla_jax.model.positions import TABLES
from chinchilla_jax.model.stacks import NAMES, stacks_of
from chinchilla_jax.model.weights import is_node, settled


class Kept(NamedTuple):
    """Keys and values of a stack of N layers."""

    k_JTK: jax.Array
    v_JTK: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Cache:
    """`used_S` tokens of every slot are kept."""

    stacks: tuple[Kept, ...]
    used_S: jax.Array

    @property
    def capacity(self) -> int:
        """T, the most tokens of a slot."""
        return self.stacks[0].k_JTK.shape[1]


def _packed_table(table: Any, kernels: str) -> Any:
    """A table is laid as its transpose (D, V) is packed; no copy of it is made."""
    return Packed(table, table.shape[::-1]) if isinstance(table, jax.Array) and kernels == "cpu" else table


# How decoding keeps kernels (w, kernels, contract) and tables (w, kernels).
FORMS = {
    "float": (packed, _packed_table),
    "int8": (lambda w, kernels, contract: packed8(w, contract), lambda table, kernels: Packed8.of_table(table)),
}


ALONE = ("cpu", "cuda")  # a loop would copy the weights of every layer out of their stack


def split_layers(params: dict[str, Any], cfg: ModelConfig, form: str = "float") -> dict[str, Any]:
    """The parameters ready for decoding: compute type, weights in `form`, layers in stacks."""
    pack, table = FORMS[form]

    def one(path, w):
        # Only the projection out of attention contracts two dimensions, heads and their width.
        contract = 2 if path[-2].key == "out" else 1
        return pack(w, cfg.kernels, contract) if path[-1].key == "kernel" else w

    def ready(layer):
        return _joined(jax.tree_util.tree_map_with_path(one, layer, is_leaf=is_node))

    copy, blocks = transformer.compute_copy(settled(params), cfg), []
    for name, _, count in stacks_of(copy):
        size = 1 if cfg.kernels in ALONE else count
        cuts = [slice(at, at + size) for at in range(0, count, size)]
        blocks += [jax.vmap(ready)(jax.tree.map(lambda w_N, cut=cut: w_N[cut], copy[name])) for cut in cuts]
    rest = {name: part for name, part in copy.items() if name not in NAMES}
    tables = {
        name: {**rest[name], "table": table(rest[name]["table"], cfg.kernels)}
        for name in ("embed", "unembed")
        if name in rest
    }
    return {**rest, **tables, "blocks": tuple(blocks)}


SIDES = {"attention": ("query", "key", "value"), "mlp": ("gate", "up")}  # what reads the same activations


def _joined(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer whose packed kernels of the same inputs are one: a product less is read, rounded and started."""
    for name, sides in SIDES.items():
        part = layer[name]
        kernels = [part[side]["kernel"] for side in sides if side in part]
        if outputs_shared() or len(kernels) < 2 or not all(type(w) in (Packed, Packed8) for w in kernels):
            continue
        laid = {side: {**part[side], "kernel": w} for side, w in zip(sides, joined(kernels))}
        layer = {**layer, name: {**part, **laid}}
    return layer


def empty(split: dict[str, Any], cfg: ModelConfig, slots: int, capacity: int) -> Cache:
    """A cache for `slots` texts of at most `capacity` tokens."""

    def one(stack):
        J = _layers(stack) * slots * (cfg.kv_heads or cfg.heads)
        zeros_JTK = jnp.zeros((J, capacity, cfg.head_dim), cfg.dtype)
        return Kept(zeros_JTK, zeros_JTK)

    return Cache(tuple(map(one, split["blocks"])), jnp.zeros(slots, jnp.int32))


def widen(cache: Cache, capacity: int) -> Cache:
    """The same texts in slots of `capacity` tokens, more than there were."""
    more = [(0, 0), (0, capacity - cache.capacity), (0, 0)]
    return Cache(jax.tree.map(lambda x_JTK: jnp.pad(x_JTK, more), cache.stacks), cache.used_S)


def _layers(stack: dict[str, Any]) -> int:
    return len(jax.tree.leaves(stack)[0])


def _projected_distances(layer: dict[str, Any], cfg: ModelConfig, capacity: int) -> jax.Array:
    table_TD = TABLES["relative"](cfg, None, capacity).astype(cfg.dtype)
    return dense(table_TD, layer["attention"]["positions"]["kernel"], cfg.kernels)


DISTANCES = {"rope": None, "relative": _projected_distances}


def distances(split: dict[str, Any], cfg: ModelConfig, capacity: int) -> tuple[jax.Array, ...]:
    """What `fitted` adds to every stack: projected distances (N, capacity, H, K); nothing with rotary positions."""
    project = DISTANCES[cfg.positions]
    return tuple(jax.vmap(lambda layer: project(layer, cfg, capacity))(stack) for stack in split["blocks"] if project)


def fitted(split: dict[str, Any], distances: tuple[jax.Array, ...]) -> dict[str, Any]:
    """Parameters for slots of the capacity of `distances`, which belong to one model as every weight does."""
    if not distances:
        return split
    blocks = [{**stack, "distances": r_NTHK} for stack, r_NTHK in zip(split["blocks"], distances, strict=True)]
    return {**split, "blocks": tuple(blocks)}


def extend(
    split: dict[str, Any],
    tokens_BL: jax.Array,
    count_B: jax.Array,
    cache: Cache,
    cfg: ModelConfig,
    *,
    slot_B: jax.Array | None = None,
    block: bool = False,
) -> tuple[jax.Array, Cache]:
    """Append tokens to every slot, or to the few of `slot_B`: hidden states (B, L, D) after the last norm, the cache.

    The first `count_B` tokens of a row count; what follows is padding, which the row's next tokens overwrite. With
    `block` the new tokens see each other in both directions, as those of a `Batch.blocks` number do.
    """
    L = tokens_BL.shape[1]
    used_B = cache.used_S if slot_B is None else cache.used_S[slot_B]
    positions_BL = used_B[:, None] + jnp.arange(L)
    last_BL = jnp.broadcast_to((used_B + count_B - 1)[:, None], positions_BL.shape) if block else positions_BL
    mask_BLT = jnp.arange(cache.capacity) <= last_BL[:, :, None]
    tables = TABLES[cfg.positions](cfg, positions_BL, L)

    def layer(carry, at):
        (x_BLD, kept), (weights, n) = carry, at
        r_THK, S = weights.get("distances"), len(cache.used_S)
        attend = _attend(kept, n, S, used_B, slot_B, positions_BL, mask_BLT, r_THK, not block, cfg.kernels)
        x_BLD, (kept, _) = transformer.Block(cfg, attend).apply({"params": weights}, x_BLD, tables, None)
        return (x_BLD, kept), None

    x_BLD, stacks = transformer.embed(split, tokens_BL, cfg), []
    for stack, kept in zip(split["blocks"], cache.stacks):
        n = _layers(stack)
        (x_BLD, kept), _ = jax.lax.scan(layer, (x_BLD, kept), (stack, jnp.arange(n)), unroll=n == 1)
        stacks.append(kept)
    x_BLD = transformer.Norm(cfg).apply({"params": split["norm"]}, x_BLD)
    used_S = cache.used_S + count_B if slot_B is None else cache.used_S.at[slot_B].set(used_B + count_B)
    return x_BLD, Cache(tuple(stacks), used_S)


def by_slot(kept_JTK: jax.Array, slots: int, cfg: ModelConfig) -> jax.Array:
    """Keys or values of a stack as (N, S, G, T, K)."""
    return kept_JTK.reshape(-1, slots, cfg.kv_heads or cfg.heads, *kept_JTK.shape[1:])


def block_of(cache: Cache, slot: jax.Array, at: jax.Array, cfg: ModelConfig, length: int) -> jax.Array:
    """Keys and values of `length` tokens of a slot from `at` on: (N, 2, G, length, K)."""

    def part(kept_JTK):
        kept_NSGTK = by_slot(kept_JTK, len(cache.used_S), cfg)
        N, _, G, _, K = kept_NSGTK.shape
        return jax.lax.dynamic_slice(kept_NSGTK, (0, slot, 0, at, 0), (N, 1, G, length, K))[:, 0]

    return jnp.concatenate([jnp.stack([part(kept.k_JTK), part(kept.v_JTK)], 1) for kept in cache.stacks])


def with_block(cache: Cache, slot: jax.Array, at: jax.Array, block_N2GCK: jax.Array, cfg: ModelConfig) -> Cache:
    """The cache whose `slot` goes on from `at` with a block."""
    stacks, left_N2GCK = [], block_N2GCK
    for kept in cache.stacks:
        k, v = (by_slot(x_JTK, len(cache.used_S), cfg) for x_JTK in kept)
        part_N2GCK, left_N2GCK = left_N2GCK[: len(k)], left_N2GCK[len(k) :]
        put = [
            jax.lax.dynamic_update_slice(old, part_N2GCK[:, None, i], (0, slot, 0, at, 0))
            for i, old in ((0, k), (1, v))
        ]
        stacks.append(Kept(*(new.reshape(old.shape) for new, old in zip(put, kept))))
    return Cache(tuple(stacks), cache.used_S.at[slot].set(at + block_N2GCK.shape[3]))


def _write(kept_JTK: jax.Array, new_BLGK: jax.Array, used_B: jax.Array, slot_B) -> jax.Array:
    """Keys or values with new ones at the end of these slots; a slice a row, which XLA does in place."""
    new_BGLK = new_BLGK.swapaxes(1, 2).astype(kept_JTK.dtype)
    for slot, used, new_GLK in zip(slot_B, used_B, new_BGLK):
        kept_JTK = jax.lax.dynamic_update_slice(kept_JTK, new_GLK, (slot * len(new_GLK), used, 0))
    return kept_JTK


def _attend(kept: Kept, n, S: int, used_B, slot_B, positions_BL, mask_BLT, r_THK, causal: bool, kernels: str):
    """Attention of new queries over layer n of S slots, which the new keys and values have joined."""

    def attend(q_BLHK, k_BLGK, v_BLGK, relative):
        (B, L, H, K), G = q_BLHK.shape, k_BLGK.shape[2]
        whole = slot_B is None
        at_B = [n * S + slot for slot in (range(S) if whole else slot_B)]
        k_JTK, v_JTK = (_write(old, new, used_B, at_B) for old, new in ((kept.k_JTK, k_BLGK), (kept.v_JTK, v_BLGK)))

        def read(kept_JTK):
            parts = [(n * S, S)] if whole else [(at, 1) for at in at_B]
            return jnp.concatenate([jax.lax.dynamic_slice_in_dim(kept_JTK, at * G, m * G) for at, m in parts])

        def over_cache():
            q_JQK = (q_BLHK * K**-0.5).reshape(B, L, G, H // G, K).transpose(0, 2, 3, 1, 4).reshape(B * G, -1, K)
            s_JQT = jnp.einsum("jqk,jtk->jqt", q_JQK, read(k_JTK), preferred_element_type=jnp.float32)
            s_BHLT = s_JQT.reshape(B, H, L, -1)
            if relative is not None:
                s_BHLT += _by_distance(relative.qr_BLHK * K**-0.5, r_THK, positions_BL)
            p_BHLT = jax.nn.softmax(jnp.where(mask_BLT[:, None], s_BHLT, MASKED), axis=-1)
            mixed_JQK = jnp.einsum("jqt,jtk->jqk", p_BHLT.reshape(s_JQT.shape).astype(v_JTK.dtype), read(v_JTK))
            return mixed_JQK.reshape(B, H, L, K).swapaxes(1, 2)

        def begun():
            """A text's first tokens see each other alone, as in training."""
            ones_BL = jnp.ones((B, L), jnp.int32)
            return attention(q_BLHK, k_BLGK, v_BLGK, ones_BL, kernels=SHORT[kernels], relative=relative)

        first = causal and L > 1 and slot_B is not None
        mixed_BLHK = jax.lax.cond(jnp.all(used_B == 0), begun, over_cache) if first else over_cache()
        return mixed_BLHK, Kept(k_JTK, v_JTK)

    return attend


# Attention among the tokens of a chunk; a TPU's kernel takes multiples of 128 alone.
SHORT = {"reference": "reference", "cpu": "cpu", "cuda": "cuda", "tpu": "reference"}


def _by_distance(qr_BLHK: jax.Array, r_THK: jax.Array, positions_BL: jax.Array) -> jax.Array:
    """The position term of every query for every key, (B, H, L, T)."""
    at_T = jnp.arange(r_THK.shape[0])
    s_BHLT = jnp.einsum("blhk,thk->bhlt", qr_BLHK, r_THK, preferred_element_type=jnp.float32)
    distance_BLT = jnp.clip(positions_BL[:, :, None] - at_T, 0, len(at_T) - 1)
    return jnp.take_along_axis(s_BHLT, distance_BLT[:, None], axis=-1)
