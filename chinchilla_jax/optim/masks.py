"""Which weights stay: the largest by exact bisection, N of M, and how many of each matrix.

A threshold is found by counting, never by sorting: under GSPMD a count is a sum on every device and one all-reduce of
a number a layer, so a sharded weight is never gathered, and the mask does not depend on the mesh.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from chinchilla_jax.config import require


def keep_largest(scores: jax.Array, count, *, axes: Sequence[int] | None = None, allowed=None) -> jax.Array:
    """The mask of the `count` largest of `scores` (not negative) along `axes`; None is all of them.

    `count` is broadcast against the sums over `axes` with their dimensions kept. Exact: of equal scores the first in
    row-major order stay. Only `allowed` entries (a mask) are kept; where there are fewer than `count`, all of them.
    """
    axes = tuple(range(scores.ndim)) if axes is None else tuple(axes)

    def total(tests):
        return jnp.sum(tests[0], axes, dtype=jnp.uint32, keepdims=True)

    size = math.prod(scores.shape[axis] for axis in axes)
    return _bisect([_key(scores, allowed)], count, total, [_position(scores.shape, axes)], size)[0]


def keep_largest_of_all(scores: Sequence[jax.Array], count) -> list[jax.Array]:
    """`keep_largest` with one threshold for several arrays, of less than 2^32 entries together."""

    def total(tests):
        return sum(jnp.sum(test, dtype=jnp.uint32) for test in tests)

    starts, size = [], 0
    for one in scores:
        starts.append(jnp.uint32(size))
        size += one.size
    require(size < 2**32, f"--sparsity.distribution global counts up to 2^32 weights, not {size}; choose erk")
    positions = [start + _position(one.shape, range(one.ndim)) for start, one in zip(starts, scores)]
    return _bisect([_key(one, None) for one in scores], count, total, positions, size)


def _key(scores, allowed):
    """Whole numbers in the order of the scores (the bits of a float that is not negative); -1 where not allowed."""
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32)
    return bits if allowed is None else jnp.where(allowed, bits, -1)


def _position(shape, axes):
    """The row-major number of every entry along `axes`; from an iota per axis, since a reshape would gather."""
    position, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(tuple(axes)):
        position += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    return position


def _bisect(keys, count, total, positions, size):
    """First the bits of the count-th largest key from the top, then those of how far its equals are kept."""
    count = jnp.asarray(count).astype(jnp.uint32)
    none = jnp.zeros_like(total([key < 0 for key in keys]))

    def threshold(i, t):
        higher = t | (jnp.int32(1) << (30 - i))
        return jnp.where(total([key >= higher for key in keys]) >= count, higher, t)

    t = jax.lax.fori_loop(0, 31, threshold, none.astype(jnp.int32))
    need = count - total([key > t for key in keys])
    bits = size.bit_length()

    def bound(i, b):
        further = b | (jnp.uint32(1) << (bits - 1 - i).astype(jnp.uint32))
        ties = total([(key == t) & (place < further) for key, place in zip(keys, positions)])
        return jnp.where(ties <= need, further, b)

    # Equals are rare among float32 weights, and this half of the passes is only for them.
    several = jnp.any(total([key == t for key in keys]) > need)
    b = jax.lax.cond(several, lambda: jax.lax.fori_loop(0, bits, bound, none), lambda: ~none)
    return [(key > t) | ((key == t) & (place < b)) for key, place in zip(keys, positions)]


def n_m(scores: jax.Array, n, m: int, axis: int) -> jax.Array:
    """The mask of the `n` largest (of equals the first) in every `m` neighbours along `axis`, which m must divide."""
    axis %= scores.ndim
    groups = scores.reshape(*scores.shape[:axis], -1, m, *scores.shape[axis + 1 :])
    other, mine = jnp.expand_dims(groups, axis + 2), jnp.expand_dims(groups, axis + 1)
    at = jnp.arange(m)
    earlier = (at[:, None] < at).reshape(m, m, *[1] * (scores.ndim - axis - 1))
    rank = jnp.sum((other > mine) | ((other == mine) & earlier), axis + 1, dtype=jnp.int32)
    return (rank < n).reshape(scores.shape)


def erk(shapes: Sequence[tuple[int, ...]], density: float) -> list[float]:
    """Densities in proportion to sum(dims) / product(dims) that keep `density` of all weights (Evci et al. 2020).

    A matrix that would need more than 1 is dense, and the others share what is left.
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes)]
    full: set[int] = set()
    while len(full) < len(shapes):
        free = [i for i in range(len(shapes)) if i not in full]
        budget = density * sum(sizes) - sum(sizes[i] for i in full)
        scale = budget / sum(raw[i] * sizes[i] for i in free)
        over = {i for i in free if scale * raw[i] > 1}
        if not over:
            return [1.0 if i in full else scale * raw[i] for i in range(len(shapes))]
        full |= over
    return [1.0] * len(shapes)
