"""Dead neurons and heads cut out of a model: a smaller dense one with the same predictions.

A hidden unit is dead if nothing leaves it (its row of `down` is 0), or if nothing enters it and it has no bias. A group
of query heads with its keys and values is dead if its rows of `out` are 0, or its values are and have no bias. Layers
are stacked, so each loses as many as the one with the fewest dead; the others keep some that are 0.
"""

import dataclasses
from typing import Any

import numpy as np

from chinchilla_jax.config import ModelConfig, require

# Leaves below blocks/ by the axis of their units, behind that of the layers; `out` and `down` contract theirs.
NEURONS = {"mlp/gate/kernel": 2, "mlp/up/kernel": 2, "mlp/gate/bias": 1, "mlp/up/bias": 1, "mlp/down/kernel": 1}
KEYS = {"attention/key/kernel": 2, "attention/value/kernel": 2, "attention/key/bias": 1, "attention/value/bias": 1}
QUERIES = {"attention/query/kernel": 2, "attention/query/bias": 1, "attention/out/kernel": 1}


def sliced(leaves: dict[str, np.ndarray], cfg: ModelConfig) -> tuple[dict[str, np.ndarray], ModelConfig]:
    """Leaves by path without what is dead in all layers alike, and their config; `UserError` where nothing is."""
    made = {name.removeprefix("blocks/"): leaf for name, leaf in leaves.items() if name.startswith("blocks/")}
    rest = {name: leaf for name, leaf in leaves.items() if not name.startswith("blocks/")}
    units = alive(made, "mlp/down/kernel", ("mlp/up/kernel", "mlp/up/bias"), cfg.d_ff)
    groups = cfg.kv_heads or cfg.heads
    each = cfg.heads // groups
    heads = alive(made, "attention/out/kernel", ("attention/value/kernel", "attention/value/bias"), groups)
    queries = (heads[..., None] * each + np.arange(each)).reshape(len(heads), -1)
    require(
        units.shape[1] < cfg.d_ff or heads.shape[1] < groups,
        "no layer-wide neurons or heads are zero here, so there is nothing to cut out; train with --sparsity.pattern "
        "neurons or heads, or write --format sparse",
    )
    relative = {name: 1 for name in made if name.startswith("attention/positions/") and name.endswith("_bias")}
    relative |= {name: 2 for name in made if name.startswith("attention/positions/") and name.endswith("/kernel")}
    for axes, kept in ((NEURONS, units), (KEYS, heads), (QUERIES | relative, queries)):
        for name in axes.keys() & made.keys():
            made[name] = np.stack([w.take(at, axis=axes[name] - 1) for w, at in zip(made[name], kept)])
    sizes: dict[str, Any] = {"d_ff": units.shape[1], "heads": queries.shape[1], "preset": ""}
    sizes |= {"kv_heads": heads.shape[1]} if cfg.kv_heads else {}
    return rest | {f"blocks/{name}": leaf for name, leaf in made.items()}, dataclasses.replace(cfg, **sizes)


def alive(made: dict[str, np.ndarray], leaving: str, entering: tuple[str, str], units: int) -> np.ndarray:
    """Numbers of the units that stay (N, kept): all that are alive, in order, and dead ones where a layer has fewer."""
    out, (into, bias) = made[leaving], (made[entering[0]], made.get(entering[1]))
    leaves_N = out.reshape(len(out), units, -1).any(-1)
    enters_N = np.moveaxis(into, 2, 1).reshape(len(into), units, -1).any(-1)
    if bias is not None:
        enters_N |= bias.reshape(len(bias), units, -1).any(-1)
    alive_N = leaves_N & enters_N
    most = max(1, alive_N.sum(1).max())
    return np.sort(np.argsort(~alive_N, axis=1, kind="stable")[:, :most], axis=1)
