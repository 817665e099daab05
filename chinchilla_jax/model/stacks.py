"""The blocks as one stack or as two: `blocks`, the lower ones, and `top`, which alone may be differentiated."""

from typing import Any

import jax
import jax.numpy as jnp

NAMES = ("blocks", "top")


def stacks_of(params: dict[str, Any]) -> tuple[tuple[str, int, int], ...]:
    """(name, number of its first layer, layers) of every stack, from the lowest."""
    found, first = [], 0
    for name in (name for name in NAMES if name in params):
        layers = jax.tree.leaves(params[name])[0].shape[0]
        found.append((name, first, layers))
        first += layers
    return tuple(found)


def joined(parts: list[Any]) -> Any:
    """What several stacks gave, stacked over all layers."""
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)


def divided(params: dict[str, Any], top: int) -> dict[str, Any]:
    """`params` whose last `top` layers are a stack of their own."""
    blocks, layers = params["blocks"], jax.tree.leaves(params["blocks"])[0].shape[0]
    lower, upper = (
        jax.tree.map(lambda w, part=part: w[part], blocks) for part in (slice(layers - top), slice(layers - top, None))
    )
    rest = {name: part for name, part in params.items() if name != "blocks"}
    return {**rest, **({"blocks": lower} if top < layers else {}), "top": upper}


def lowest(params: dict[str, Any], layers: int) -> dict[str, Any]:
    """`params` of one stack with its first `layers` layers."""
    return params | {"blocks": jax.tree.map(lambda w: w[:layers], params["blocks"])}


def whole(params: dict[str, Any]) -> dict[str, Any]:
    """`params` with all layers in one stack again."""
    names = [name for name, *_ in stacks_of(params)]
    rest = {name: part for name, part in params.items() if name not in names}
    return {**rest, "blocks": joined([params[name] for name in names])}
