"""The kinds of adapters: which node a matrix becomes, and how its own leaves start."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.finetuning.targets import Site
from chinchilla_jax.model import weights

Leaves = dict[str, Any]


class Kind(NamedTuple):
    """`outline(tune, site, of, rank)` gives the leaves' shapes where `of` is the matrix's, and their axes likewise.

    `start(key, kernel, shapes, site)` gives their first values, `wrap(kernel, leaves, tune, scale, site)` the node.
    """

    outline: Callable[..., Leaves]
    start: Callable[..., Leaves]
    wrap: Callable[..., Any]
    targets: str = "all-linear"


def _uniform(key, shape, inward: tuple[int, ...]):
    """U(-1, 1) / sqrt(inputs): Kaiming's with a = sqrt 5, as in peft."""
    bound = math.prod(inward) ** -0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _low_rank_start(key, kernel, shapes, site: Site):
    """Without an effect: b is 0; on a table the rows are, since a piece is an input of its own."""
    _, inward, _ = site.parts(kernel.shape)
    if site.name.endswith("/table"):
        return {"a": jnp.zeros(shapes["a"]), "b": _uniform(key, shapes["b"], shapes["b"][1:])}
    return {"a": _uniform(key, shapes["a"], inward), "b": jnp.zeros(shapes["b"])}


def _low_rank(kernel, leaves, tune: TuneConfig, scale: float, site: Site):
    return weights.LowRank(kernel=kernel, key=None, scale=scale, rate=tune.dropout, **leaves)


def _of(node):
    return lambda tune, site, of, rank: node.outline(*site.parts(of), rank)


LOW_RANK = Kind(_of(weights.LowRank), _low_rank_start, _low_rank)
KINDS = {"lora": LOW_RANK, "rslora": LOW_RANK}
