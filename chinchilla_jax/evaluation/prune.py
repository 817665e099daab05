"""One-shot pruning of a trained model: magnitude, Wanda and SparseGPT, layer by layer.

A matrix is (P, Q): P inputs, which the product contracts, and Q outputs. Of each projection of a layer the inputs of a
calibration set are gathered, its weights are pruned, and what the pruned layer gives is what the next layer reads.

magnitude   the largest |w| of the matrix stay
wanda       the largest |w_pq| ||x_p|| of each output stay, x_p being input p over the calibration tokens; no weight
            changes (Sun et al. 2024)
sparsegpt   the weights that go are chosen by w_pq^2 / U_pp^2, and what they did is taken over by those that come after
            them; U^T U is the inverse of X^T X + 1 % of its mean diagonal (Frantar & Alistarh 2023)

Embeddings, norms, biases and the projection of positions are left as they are.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig, require
from chinchilla_jax.evaluation.robustness import exact
from chinchilla_jax.model import transformer
from chinchilla_jax.model.attention import attention
from chinchilla_jax.model.positions import TABLES
from chinchilla_jax.optim.masks import keep_largest, n_m
from chinchilla_jax.optim.patterns import matrix
from chinchilla_jax.parallel.flight import paced
from chinchilla_jax.types import Batch

BLOCK = 128  # inputs of which SparseGPT chooses those that go at one time
DAMPING = 0.01

# (scores (P, Q), axes along which weights compete) -> which stay
Keep = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def keeper(target: float, groups: tuple[int, int] | None) -> Keep:
    """What leaves out a share `target` of the weights that compete, or keeps N of every M neighbouring inputs."""
    if groups:
        return lambda scores_PQ, axes: n_m(scores_PQ, *groups, axis=0)

    def largest(scores_PQ, axes):
        size = math.prod(scores_PQ.shape[axis] for axis in axes)
        return keep_largest(scores_PQ, size - int(size * target + 1e-6), axes=axes)

    return largest


def magnitude(w_PQ: jax.Array, squares_P: jax.Array, keep: Keep, step: int) -> jax.Array:
    """The matrix without its smallest weights."""
    del squares_P, step
    return jnp.where(keep(jnp.abs(w_PQ), (0, 1)), w_PQ, 0)


def wanda(w_PQ: jax.Array, squares_P: jax.Array, keep: Keep, step: int) -> jax.Array:
    """The matrix without the weights that, with the size of their input, matter least to their output."""
    del step
    return jnp.where(keep(jnp.abs(w_PQ) * jnp.sqrt(squares_P)[:, None], (0,)), w_PQ, 0)


def sparsegpt(w_PQ: jax.Array, gram_PP: jax.Array, keep: Keep, step: int) -> jax.Array:
    """The matrix with weights gone and the others changed to make up for them; `step` inputs are chosen at a time.

    What is 0 already stays so, and goes first.
    """
    P, dead_P, zero_PQ = len(w_PQ), jnp.diagonal(gram_PP) == 0, w_PQ == 0
    step = min(step, P)
    w_PQ, gram_PP = jnp.where(dead_P[:, None], 0, w_PQ), gram_PP + jnp.diag(dead_P.astype(gram_PP.dtype))
    gram_PP += DAMPING * jnp.mean(jnp.diagonal(gram_PP)) * jnp.eye(P)
    # U^T U = gram^-1 from the factor of the flipped matrix: no inverse is formed, and a single factor.
    lower_PP = jnp.linalg.cholesky(jnp.flip(gram_PP))
    factor_PP = jnp.flip(jax.scipy.linalg.solve_triangular(lower_PP, jnp.eye(P), lower=True))
    scale_P = jnp.diagonal(factor_PP)

    def inputs(first, count, w_PQ):
        w_IQ = jax.lax.dynamic_slice_in_dim(w_PQ, first, count)
        scale_I = jax.lax.dynamic_slice_in_dim(scale_P, first, count)
        zero_IQ = jax.lax.dynamic_slice_in_dim(zero_PQ, first, count)
        stay_IQ = keep(jnp.where(zero_IQ, 0, jnp.square(w_IQ / scale_I[:, None])), (0, 1)) & ~zero_IQ

        def one(i, w_PQ):
            p = first + i
            gone_Q = jnp.where(stay_IQ[i], 0, w_PQ[p])
            w_PQ = w_PQ - jnp.outer(factor_PP[p], gone_Q / scale_P[p])
            return w_PQ.at[p].set(jnp.where(stay_IQ[i], w_PQ[p], 0))

        return jax.lax.fori_loop(0, count, one, w_PQ)

    w_PQ = jax.lax.fori_loop(0, P // step, lambda n, w_PQ: inputs(n * step, step, w_PQ), w_PQ)
    return inputs(P - P % step, P % step, w_PQ) if P % step else w_PQ


def squares(x_BLP: jax.Array) -> jax.Array:
    """The squared length of every input over the tokens, (P,)."""
    return jnp.sum(jnp.square(x_BLP), axis=(0, 1))


def gram(x_BLP: jax.Array) -> jax.Array:
    """X^T X, (P, P)."""
    return jnp.einsum("blp,blq->pq", x_BLP, x_BLP)


# What prunes a matrix, and what it has to know of the matrix's inputs; the latter adds up over batches.
METHODS = {"magnitude": (magnitude, squares), "wanda": (wanda, squares), "sparsegpt": (sparsegpt, gram)}


def through(layer: Any, x_BLD: jax.Array, batch: Batch, cfg: ModelConfig) -> tuple[jax.Array, dict[str, Any]]:
    """A block's output, and what each of its projections reads; `Block` in pieces, without dropout."""

    def attend(q_BLHK, k_BLGK, v_BLGK, relative):
        mixed_BLHK = attention(q_BLHK, k_BLGK, v_BLGK, batch.segments, kernels=cfg.kernels, relative=relative)
        return mixed_BLHK, mixed_BLHK

    tables = TABLES[cfg.positions](cfg, batch.positions, batch.tokens.shape[1])
    before_BLD = transformer.Norm(cfg).apply({"params": layer["norm_attention"]}, x_BLD)
    module = transformer.Attention(cfg, attend)
    out_BLD, mixed_BLHK = module.apply({"params": layer["attention"]}, before_BLD, tables)
    x_BLD += out_BLD
    after_BLD = transformer.Norm(cfg).apply({"params": layer["norm_mlp"]}, x_BLD)
    fed_BLD, hidden_BLF = transformer.Mlp(cfg, lambda h_BLF: h_BLF).apply({"params": layer["mlp"]}, after_BLD)
    read = {"attention": {"query": before_BLD, "key": before_BLD, "value": before_BLD, "out": mixed_BLHK}}
    read["mlp"] = {"gate": after_BLD, "up": after_BLD, "down": hidden_BLF}
    return x_BLD + fed_BLD, read


@partial(jax.jit, static_argnames="cfg")
def forward(layer: Any, x_BLD: jax.Array, batch: Batch, cfg: ModelConfig) -> jax.Array:
    """What a block makes of its input."""
    return through(layer, x_BLD, batch, cfg)[0]


embed = jax.jit(transformer.embed, static_argnames="cfg")
add = jax.jit(partial(jax.tree.map, jnp.add))
layer_of = jax.jit(lambda blocks, number: jax.tree.map(lambda w: w[number], blocks))
stack = jax.jit(lambda layers: jax.tree.map(lambda *one: jnp.stack(one), *layers))


@partial(jax.jit, static_argnames=("cfg", "method"))
def known(layer: Any, x_BLD: jax.Array, batch: Batch, cfg: ModelConfig, method: str) -> dict[str, dict[str, jax.Array]]:
    """What `method` has to know of the inputs of a layer's projections, from the real tokens of a batch."""

    def one(x):
        return METHODS[method][1](jnp.where(batch.segments[..., None] > 0, x.reshape(*batch.tokens.shape, -1), 0))

    return jax.tree.map(one, through(layer, x_BLD, batch, cfg)[1])


@partial(jax.jit, static_argnames=("method", "target", "groups"))
def pruned_layer(layer: Any, found: Any, method: str, target: float, groups: tuple[int, int] | None) -> Any:
    """A block with its projections pruned."""
    keep, step = keeper(target, groups), groups[1] if groups else BLOCK

    def one(name, weights, inputs):
        kernel = weights["kernel"]
        _, P, Q = matrix(f"{name}/kernel", kernel.shape)
        require(
            not groups or P % step == 0, f"--pattern N:{step} does not divide the {P} inputs of {name}; choose another"
        )
        return weights | {"kernel": METHODS[method][0](kernel.reshape(P, Q), inputs, keep, step).reshape(kernel.shape)}

    pruned = {
        part: {name: one(name, layer[part][name], inputs) for name, inputs in reads.items() if name in layer[part]}
        for part, reads in found.items()
    }
    return layer | {part: layer[part] | changed for part, changed in pruned.items()}


def prune(
    params: Any,
    cfg_model: ModelConfig,
    batches: Sequence[Batch],
    method: str,
    target: float,
    groups: tuple[int, int] | None = None,
    poll: Callable[[int], None] = lambda layer: None,
) -> Any:
    """`params` with a share `target` of the weights of every projection at zero, or N:M for `groups` = (N, M).

    The calibration `batches` lie where `params` do (on a mesh, call it under `jax.set_mesh`); everything is computed in
    float32 with full products. `cfg_model` has no "auto" left. `poll(n)` is called after the n-th layer.
    """
    cfg = exact(cfg_model)
    with jax.default_matmul_precision("highest"):
        states = list(paced(embed(params, batch.tokens, cfg) for batch in batches))
        layers = []
        for number in range(cfg.layers):
            layer = layer_of(params["blocks"], number)
            parts = paced(known(layer, x_BLD, batch, cfg, method) for x_BLD, batch in zip(states, batches))
            layer = pruned_layer(layer, reduce(add, parts), method, target, groups)
            states = list(paced(forward(layer, x_BLD, batch, cfg) for x_BLD, batch in zip(states, batches)))
            layers.append(layer)
            poll(number + 1)
    return params | {"blocks": stack(layers)}
