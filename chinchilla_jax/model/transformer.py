"""The transformer: thin Linen inside, plain functions of a plain parameter tree outside.

Letters: B batch, L length, D model, H query heads, G key/value heads, K head width, F hidden, V vocabulary, N layers.
Pre-norm blocks, stacked over N and scanned; the rest of the house addresses parameters by path and never by module.
"""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.model.attention import attention
from chinchilla_jax.model.linear import Affine, Packed, affine, along_rows, drop, look_up, side_by_side
from chinchilla_jax.model.masters import mastered
from chinchilla_jax.model.positions import ENCODERS, TABLES
from chinchilla_jax.model.stacks import joined, stacks_of
from chinchilla_jax.model.weights import array, is_node, looked_up, weight
from chinchilla_jax.parallel.sharding import constrain
from chinchilla_jax.types import Batch

Params = dict[str, Any]

# (q_BLHK, k_BLGK, v_BLGK, relative) -> mixed values (B, L, H, K), and whatever the caller wants kept (a cache).
Attend = Callable[..., tuple[jax.Array, Any]]

# h_BLF, the hidden activations of a feed-forward layer -> whatever the caller wants to know of them.
Watch = Callable[[jax.Array], Any]


def unwatched(h_BLF: jax.Array) -> None:
    """Nothing is wanted of the hidden activations."""


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019) in float32: x / sqrt(mean(x^2) + eps) * (offset + scale)."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x_BLD):
        one = nn.initializers.constant(1.0 - self.cfg.norm_offset)
        scale = nn.with_logical_partitioning(one, ("norm",))
        scale_D = self.param("scale", scale, (x_BLD.shape[-1],))
        x32_BLD = x_BLD.astype(jnp.float32)
        rms_BL1 = jax.lax.rsqrt(jnp.mean(jnp.square(x32_BLD), axis=-1, keepdims=True) + self.cfg.norm_eps)
        return (x32_BLD * rms_BL1 * (self.cfg.norm_offset + scale_D)).astype(x_BLD.dtype)


class Unnormed(nn.Module):
    """Queries and keys as they are; has no parameters."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x_BLHK):
        return x_BLHK


HEAD_NORMS = {False: Unnormed, True: Norm}


class Projection(nn.Module):
    """A layer whose weight is named by its logical axes and contracts its first `contract` dimensions."""

    cfg: ModelConfig
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    contract: int = 1
    bias: bool = False
    std: float = 0.0

    @nn.compact
    def __call__(self, dtype) -> Affine:
        normal = nn.initializers.normal(self.std or self.cfg.init_std)
        w = weight(self, "kernel", nn.with_logical_partitioning(normal, self.axes), self.shape).astype(dtype)
        if not self.bias:
            return Affine(w, contract=self.contract)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[self.contract :])
        return Affine(w, self.param("bias", zeros, self.shape[self.contract :]).astype(dtype), self.contract)


def residual_std(cfg: ModelConfig) -> float:
    """Initial deviation of what adds to the residual stream: init_std / sqrt(2 N), GPT-2's rule."""
    return cfg.init_std * (2 * cfg.layers) ** -0.5


class Attention(nn.Module):
    """Projections round the one attention function; `attend` decides whose keys there are, the batch's or a cache's."""

    cfg: ModelConfig
    attend: Attend

    @nn.compact
    def __call__(self, x_BLD, tables):
        cfg = self.cfg
        D, H, G, K = cfg.d_model, cfg.heads, cfg.kv_heads or cfg.heads, cfg.head_dim
        project = partial(Projection, cfg, bias=cfg.biases or cfg.attention_biases)
        query = project((D, H, K), ("embed", "heads", "head_dim"), name="query")(x_BLD.dtype)
        key = project((D, G, K), ("embed", "kv_heads", "head_dim"), name="key")(x_BLD.dtype)
        value = project((D, G, K), ("embed", "kv_heads", "head_dim"), name="value")(x_BLD.dtype)
        projected = side_by_side(x_BLD, [query, key, value], cfg.kernels)
        q_BLHK, k_BLGK, v_BLGK = (checkpoint_name(a, "qkv") for a in projected)
        head_norm = partial(HEAD_NORMS[cfg.qk_norm], cfg)
        q_BLHK, k_BLGK = head_norm(name="query_norm")(q_BLHK), head_norm(name="key_norm")(k_BLGK)
        q_BLHK, k_BLGK, relative = ENCODERS[cfg.positions](cfg, name="positions")(q_BLHK, k_BLGK, tables)
        mixed_BLHK, kept = self.attend(q_BLHK, k_BLGK, v_BLGK, relative)
        out = Projection(cfg, (H, K, D), ("heads", "head_dim", "embed"), 2, std=residual_std(cfg), name="out")
        mixed_BLHK = checkpoint_name(mixed_BLHK, "attention")
        return checkpoint_name(affine(mixed_BLHK, out(x_BLD.dtype), cfg.kernels), "out"), kept


class Mlp(nn.Module):
    """Feed-forward layer: `gate` multiplies where the activation has one (Shazeer 2020)."""

    cfg: ModelConfig
    watch: Watch = unwatched

    @nn.compact
    def __call__(self, x_BLD):
        cfg = self.cfg
        inward = partial(Projection, cfg, (cfg.d_model, cfg.d_ff), ("embed", "mlp"), bias=cfg.biases)
        names = ("gate", "up") if cfg.gated else ("up",)
        hidden = side_by_side(x_BLD, [inward(name=name)(x_BLD.dtype) for name in names], cfg.kernels)
        h_BLF = ACTIVATIONS[cfg.mlp](*(checkpoint_name(h, "hidden") for h in hidden))
        out = Projection(cfg, (cfg.d_ff, cfg.d_model), ("mlp", "embed"), std=residual_std(cfg), name="down")
        return affine(h_BLF, out(h_BLF.dtype), cfg.kernels), self.watch(h_BLF)


# The hidden activations as a function of what goes in.
ACTIVATIONS = {
    "swiglu": lambda gate, up: jax.nn.silu(gate) * up,
    "reglu": lambda gate, up: jax.nn.relu(gate) * up,
    "geglu": lambda gate, up: jax.nn.gelu(gate) * up,
    "gelu": jax.nn.gelu,
    "relu2": lambda up: jnp.square(jax.nn.relu(up)),
}


class Block(nn.Module):
    """Norm, attention, norm, feed-forward, each added to the residual stream; and what was kept and seen on the way."""

    cfg: ModelConfig
    attend: Attend
    watch: Watch = unwatched

    @nn.compact
    def __call__(self, x_BLD, tables, key):
        cfg = self.cfg
        keys = (None, None) if key is None else jax.random.split(key)
        normed_BLD = Norm(cfg, name="norm_attention")(x_BLD)
        mixed_BLD, kept = Attention(cfg, self.attend, name="attention")(normed_BLD, tables)
        x_BLD = constrain(x_BLD + drop(mixed_BLD, cfg.dropout, keys[0]), "batch", None, None)
        fed_BLD, seen = Mlp(cfg, self.watch, name="mlp")(Norm(cfg, name="norm_mlp")(x_BLD))
        return constrain(x_BLD + drop(fed_BLD, cfg.dropout, keys[1]), "batch", None, None), (kept, seen)


SAVED_NAMES = jax.checkpoint_policies.save_only_these_names("qkv", "attention", "attention_sums", "out", "hidden")


def save_fused(primitive, *args, **params) -> bool:
    """Keep fused attention's output and log-sums, which carry no name: its forward kernel does not run again."""
    return "dot_product_attention_fwd" in primitive.name


def save_projections(primitive, *args, **params) -> bool:
    """Keep what projections give too."""
    return save_fused(primitive) or SAVED_NAMES(primitive, *args, **params)


def rematerialised(block, cfg: ModelConfig):
    """A block whose backward pass computes again what its policy does not keep.

    Where layers are unrolled, XLA would merge the second forward pass of `full` with the first, and so keep everything
    after all: barriers prevent that. `projections` computes only cheap things again, and leaves the choice to XLA.
    """
    if cfg.remat == "none":
        return block
    policy, barriers = REMAT[cfg.remat]
    return nn.remat(block, policy=policy, prevent_cse=barriers and cfg.scan_unroll > 1)


REMAT = {"projections": (save_projections, False), "full": (save_fused, True)}


class Trunk(nn.Module):
    """N blocks, stacked and scanned, and the last norm; and what `watch` saw, stacked over N."""

    cfg: ModelConfig
    attend: Attend
    watch: Watch = unwatched
    stacks: tuple[tuple[str, int, int], ...] = ()

    @nn.compact
    def __call__(self, x_BLD, tables, keys_N):
        cfg = self.cfg
        scan = partial(
            nn.scan,
            rematerialised(Block, cfg),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, 0),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        seen = []
        for name, first, layers in self.stacks or (("blocks", 0, cfg.layers),):
            blocks = scan(length=layers, unroll=min(cfg.scan_unroll, layers))
            keys = keys_N if keys_N is None else keys_N[first : first + layers]
            x_BLD, (_, more) = blocks(cfg, self.attend, self.watch, name=name)(x_BLD, tables, keys)
            seen.append(more)
        return Norm(cfg, name="norm")(x_BLD), joined(seen)


class Table(nn.Module):
    """A row a piece of the vocabulary: (V, D)."""

    cfg: ModelConfig

    @nn.compact
    def __call__(self):
        normal = nn.with_logical_partitioning(nn.initializers.normal(self.cfg.init_std), ("vocab", "embed"))
        return self.param("table", normal, (self.cfg.vocab_size, self.cfg.d_model))


def _boxed(key: jax.Array, cfg: ModelConfig) -> Params:
    """Parameters that still carry their logical axes; the same ones for every way to compute with them."""
    cfg = dataclasses.replace(cfg, kernels="reference", remat="none", scan_unroll=1)

    def untouched(q_BLHK, k_BLGK, v_BLGK, relative):
        return q_BLHK, None

    embed_key, trunk_key, unembed_key = jax.random.split(key, 3)
    x_BLD = jnp.zeros((1, 2, cfg.d_model))
    tables = TABLES[cfg.positions](cfg, jnp.zeros((1, 2), jnp.int32), 2)
    params = {"embed": Table(cfg).init(embed_key)["params"]}
    params |= Trunk(cfg, untouched).init(trunk_key, x_BLD, tables, None)["params"]
    return params if cfg.tied else {**params, "unembed": Table(cfg).init(unembed_key)["params"]}


def init(key: jax.Array, cfg: ModelConfig) -> Params:
    """Fresh float32 parameters as a plain nested dict; run under `jit` with out_shardings they are born sharded."""
    return nn.unbox(_boxed(key, cfg))


@functools.cache
def _outline(cfg: ModelConfig) -> Params:
    """Shapes and types with their logical axes: traced once, since every program of a model asks for them."""
    return jax.eval_shape(partial(_boxed, cfg=cfg), jax.random.key(0))


def abstract(cfg: ModelConfig) -> Params:
    """Shapes and types of the parameters."""
    return jax.eval_shape(nn.unbox, _outline(cfg))


def logical_axes(cfg: ModelConfig) -> Params:
    """A tuple of logical axis names for every parameter."""
    specs = nn.get_partition_spec(_outline(cfg))
    return jax.tree.map(tuple, specs, is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec))


def compute_copy(params: Params, cfg: ModelConfig, matrix: Callable = lambda w, dtype: w.astype(dtype)) -> Params:
    """Weights in the compute type, norms left in float32; made once a step, outside the scan over layers.

    `matrix` does so for what products multiply by, where it is no node.
    """

    def one(path, w):
        if path[-1].key == "scale":
            return w
        return matrix(w, cfg.dtype) if path[-1].key == "kernel" and not is_node(w) else w.astype(cfg.dtype)

    return jax.tree_util.tree_map_with_path(one, params, is_leaf=is_node)


def embed(params: Params, tokens_BL: jax.Array, cfg: ModelConfig) -> jax.Array:
    """Look tokens up: (B, L, D). Looked up before the cast, so that the table's gradient is summed in float32."""
    return (look_up(params["embed"]["table"], tokens_BL) * cfg.embed_scale).astype(cfg.dtype)


def opened(params: Params, tokens_BL: jax.Array) -> Params:
    """`params` whose embedding knows these tokens' rows: for a loss that both ends of a tied table take part in."""
    return params | {"embed": {"table": looked_up(params["embed"]["table"], tokens_BL)}}


def embedding(params: Params) -> jax.Array:
    """The input table (V, D)."""
    return array(params["embed"]["table"])


def apply(
    params: Params, batch: Batch, cfg: ModelConfig, *, delta_BLD: jax.Array | None = None, key: jax.Array | None = None
) -> jax.Array:
    """`forward` where nothing is watched: hidden states (B, L, D) after the last norm."""
    return forward(params, batch, cfg, delta_BLD=delta_BLD, key=key)[0]


def forward(
    params: Params,
    batch: Batch,
    cfg: ModelConfig,
    *,
    delta_BLD: jax.Array | None = None,
    key: jax.Array | None = None,
    watch: Watch = unwatched,
) -> tuple[jax.Array, Any]:
    """Hidden states (B, L, D) after the last norm, and what `watch` makes of every layer's activations, stacked.

    `delta_BLD` is added to the embeddings, `key` turns dropout on.
    """
    x_BLD = embed(params, batch.tokens, cfg)
    if delta_BLD is not None:
        x_BLD += delta_BLD.astype(x_BLD.dtype)

    def attend(q_BLHK, k_BLGK, v_BLGK, relative):
        out_BLHK = attention(
            q_BLHK, k_BLGK, v_BLGK, batch.segments,
            kernels=cfg.kernels, relative=relative, blocks_BL=batch.blocks, documents=cfg.documents,
        )  # fmt: skip
        return out_BLHK, None

    tables = TABLES[cfg.positions](cfg, batch.positions, batch.tokens.shape[1])
    keys_N = jax.random.split(key, cfg.layers) if key is not None and cfg.dropout else None
    stacks = stacks_of(params)
    trunk = compute_copy({name: params[name] for name in (*(name for name, *_ in stacks), "norm")}, cfg, mastered)
    x_BLD = constrain(x_BLD, "batch", None, None)
    return Trunk(cfg, attend, watch, stacks).apply({"params": trunk}, x_BLD, tables, keys_N)


def unembedding(params: Params) -> jax.Array:
    """The output matrix (V, D): the embedding table itself where the two are tied."""
    return array(params.get("unembed", params["embed"])["table"])


@functools.singledispatch
def table_logits(table, hidden_BD: jax.Array) -> jax.Array:
    """(B, V) in float32 of a few rows, by the kind of the table; from the left, along its rows: see model/linear.py."""
    return jnp.einsum("vd,bd->vb", array(table), hidden_BD, preferred_element_type=jnp.float32).T


@table_logits.register(Packed)
def _(table: Packed, hidden_BD):
    return along_rows(hidden_BD, table.w_PD, jnp.float32)


def logits(params: Params, hidden_BD: jax.Array) -> jax.Array:
    """What follows a few hidden states, (B, V) in float32."""
    return table_logits(params.get("unembed", params["embed"])["table"], hidden_BD)
