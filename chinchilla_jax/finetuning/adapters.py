"""The kinds of adapters: which node a matrix becomes, and how its own leaves start."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.finetuning.targets import Site
from chinchilla_jax.model import adapted, quantised, weights
from chinchilla_jax.model.weights import RANK

Leaves = dict[str, Any]
SPREAD = 0.02  # deviation of AdaLoRA's factors at the start in peft


class Kind(NamedTuple):
    """`outline(tune, site, of, rank)` gives the leaves' shapes where `of` is the matrix's, and their axes likewise.

    `start(tune, key, kernel, shapes, site)` gives their first values, `wrap(kernel, leaves, tune, scale, site)` the
    node. `tables`: whether it can stand on a table, and on one that is input and output at once. `bias(bias, leaves,
    site)` is what becomes of the bias that is added to the product, where anything does.
    """

    outline: Callable[..., Leaves]
    start: Callable[..., Leaves]
    wrap: Callable[..., Any]
    targets: str = "all-linear"
    tables: str = "none"  # or "untied" or "any"
    bias: Callable[..., Any] | None = None


def _uniform(key, shape, inward: tuple[int, ...]):
    """U(-1, 1) / sqrt(inputs): Kaiming's with a = sqrt 5, as in peft."""
    bound = math.prod(inward) ** -0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _low_rank_start(tune, key, kernel, shapes, site: Site):
    """Without an effect: b is 0; on a table the rows are, since a piece is an input of its own."""
    if site.table:
        return {"a": jnp.zeros(shapes["a"]), "b": _uniform(key, shapes["b"], shapes["b"][1:])}
    return {"a": _uniform(key, shapes["a"], site.parts(kernel.shape)[1]), "b": jnp.zeros(shapes["b"])}


def _decomposed_start(tune, key, kernel, shapes, site: Site):
    lengths = weights.lengths(kernel, site.lead, site.contract)
    return {**_low_rank_start(tune, key, kernel, shapes, site), "m": lengths.reshape(shapes["m"])}


def _triplets_start(tune, key, kernel, shapes, site: Site):
    """As LoRA, with singular values of 1. In peft these are 0 and both factors small and random, so that the change
    grows with the third power of Adam's first updates, and LoRA's with the first."""
    if tune.compat == "ours":
        return {**_low_rank_start(tune, key, kernel, shapes, site), "e": jnp.ones(shapes["e"])}
    keys = dict(zip("ab", jax.random.split(key)))
    return {name: SPREAD * jax.random.normal(keys[name], shapes[name]) for name in "ab"} | {"e": jnp.zeros(shapes["e"])}


def _houlsby_start(tune, key, kernel, shapes, site: Site):
    """An exact identity, since `up` is 0 (AdapterHub's "mam")."""
    zeros = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    return zeros | {"down": _uniform(key, shapes["down"], site.parts(kernel.shape)[2])}


def _prompt_start(tune, key, kernel, shapes, site: Site):
    """Rows of pieces of the vocabulary, since a random start hardly learns (Lester et al. 2021)."""
    P, V = shapes["prompt_PD"][0], kernel.shape[0]
    return {"prompt_PD": jnp.take(kernel.astype(jnp.float32), jax.random.choice(key, V, (P,), replace=P > V), axis=0)}


def _of(node):
    return lambda tune, site, of, rank: node.outline(*site.parts(of), rank)


def _low_rank(node):
    def wrap(kernel, leaves, tune: TuneConfig, scale: float, site: Site):
        return node(kernel=kernel, key=None, scale=scale, dropout=tune.dropout, **leaves)

    return wrap


def _scaled_outline(tune, site: Site, of, rank):
    lead, inward, outward = site.parts(of)
    return {"factors": (*lead, *(inward if _scales_inputs(site) else outward))}


def _scaled(kernel, leaves, tune, scale, site: Site):
    outputs = 0 if _scales_inputs(site) else len(site.parts(kernel.shape)[2])
    return adapted.Scaled(kernel=kernel, outputs=outputs, **leaves)


def _scaled_bias(bias, leaves, site: Site):
    """Activations are scaled, biases included (as in peft)."""
    return bias if _scales_inputs(site) else bias * leaves["factors"]


def _scales_inputs(site: Site) -> bool:
    """IA3 scales what comes out of a projection, but what goes into the last one of the feed-forward layer."""
    return "/mlp/down/" in site.name


def _prompt_outline(tune, site: Site, of, rank):
    return {"prompt_PD": (RANK if rank == RANK else tune.prompt, of[1])}


LORA = Kind(_of(weights.LowRank), _low_rank_start, _low_rank(weights.LowRank), tables="untied")
KINDS = {
    "lora": LORA,
    "rslora": LORA,
    "dora": Kind(_of(weights.Decomposed), _decomposed_start, _low_rank(weights.Decomposed)),
    "adalora": Kind(_of(weights.Triplets), _triplets_start, _low_rank(weights.Triplets)),
    "ia3": Kind(
        _scaled_outline,
        lambda tune, key, kernel, shapes, site: {"factors": jnp.ones(shapes["factors"])},
        _scaled,
        targets="k,v,down",
        bias=_scaled_bias,
    ),
    "houlsby": Kind(
        _of(adapted.Bottleneck),
        _houlsby_start,
        lambda kernel, leaves, *_: adapted.Bottleneck(kernel=kernel, **leaves),
        targets="out,down",
    ),
    "prompt": Kind(
        _prompt_outline,
        _prompt_start,
        lambda kernel, leaves, *_: adapted.Prompt(kernel=kernel, **leaves),
        targets="^embed/table$",
        tables="any",
    ),
}

# How a frozen matrix is stored: (array, site) -> what stands for it, and (axes, shape, site) -> its axes.
STORED = {
    "float": (lambda w, site: w, lambda axes, shape, site: axes),
    "int8": (
        lambda w, site: quantised.Int8.of(w, site.inputs),
        lambda axes, shape, site: quantised.Int8.axes(axes, site.inputs),
    ),
    "int4": (
        lambda w, site: quantised.Int4.of(w, site.inputs),
        lambda axes, shape, site: quantised.Int4.axes(axes, site.inputs, shape[site.lead :]),
    ),
}
