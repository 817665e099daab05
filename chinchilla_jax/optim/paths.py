"""Parameters by name, and what in an optimizer's state follows them."""

from collections.abc import Callable
from typing import Any

import jax


def named(tree: Any) -> dict[str, Any]:
    """Path such as `blocks/mlp/up/kernel` -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def map_followers(f: Callable, tree: Any, followed: dict[str, Any], otherwise: Callable = lambda leaf: leaf) -> Any:
    """`f(leaf, followed[name])` for every leaf of `tree` that follows a parameter, `otherwise(leaf)` for the others.

    A leaf follows the parameter whose path its own ends in, if it has its shape: the moments of any optimizer do,
    whatever they are wrapped in, and factored moments and counters do not.
    """

    def one(path, leaf):
        keys = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        for start in range(len(keys)):
            found = followed.get("/".join(keys[start:]))
            if found is not None:
                return f(leaf, found) if leaf.shape == found.shape else otherwise(leaf)
        return otherwise(leaf)

    return jax.tree_util.tree_map_with_path(one, tree)
