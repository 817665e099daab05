"""Sparsity as links of the optimizer's chain, and a report of what it left.

Whatever the method, the parameters after an update hold exact zeros, in float32 and in bfloat16.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from chinchilla_jax.config import PENALTIES, SparsityConfig, require
from chinchilla_jax.optim import dynamic, proximal
from chinchilla_jax.optim.paths import map_followers, named
from chinchilla_jax.optim.patterns import STACKED, Site, choose, sites
from chinchilla_jax.optim.straight_through import straight_through
from chinchilla_jax.optim.window import window

Links = list[optax.GradientTransformation]


def sparsify(links: Links, cfg: SparsityConfig, rate: optax.Schedule, steps: int, seed: int = 0) -> Links:
    """The links of a chain made sparse by the method of `cfg` in a run of `steps` updates; "off" leaves them alone.

    A rule that matches no parameter and a pattern that does not divide one are `UserError`s, raised by `init`.
    """
    return METHODS[cfg.method](links, cfg.settled(), rate, steps, seed)


def find(cfg: SparsityConfig, parameters: dict[str, Any]) -> tuple[Site, ...]:
    """The sites of `cfg` among parameters by name."""
    chosen = choose(list(parameters), cfg.include, cfg.exclude)
    found = sites({name: parameters[name].shape for name in chosen}, cfg.pattern)
    require(
        cfg.distribution != "global" or len({site.unit_size for site in found}) == 1,
        f"--sparsity.distribution global cannot compare the {cfg.pattern} of matrices of several shapes; choose erk",
    )
    for site in found:
        require(
            site.units > 1 or cfg.method in PENALTIES,
            f"--sparsity.pattern {cfg.pattern} finds one unit a layer in {site.names[0]}, and one has to stay; choose "
            "another",
        )
    return found


def _masked(change, links: Links, cfg: SparsityConfig, rate, steps: int, seed: int) -> Links:
    when = window(cfg, steps)
    return [dynamic.masked(optax.chain(*links), partial(find, cfg), when, change(cfg, when, seed))]


def _proximal(prox, links: Links, cfg: SparsityConfig, rate, steps: int, seed: int) -> Links:
    return [*links, proximal.proximal(prox, partial(find, cfg), window(cfg, steps), rate, cfg.strength)]


def _straight_through(links: Links, cfg: SparsityConfig, rate, steps: int, seed: int) -> Links:
    def prune(found, weights):
        return dynamic.prune(cfg, found, weights, 1.0)

    return [straight_through(optax.chain(*links), partial(find, cfg), window(cfg, steps), prune, cfg.decay)]


def _off(links: Links, cfg: SparsityConfig, *rest) -> Links:
    idle = cfg.pattern == SparsityConfig.pattern and not cfg.strength
    require(idle, "--sparsity.pattern and --sparsity.strength need a --sparsity.method; choose one or leave them out")
    return links


METHODS = {
    "off": _off,
    "l1": partial(_proximal, proximal.l1),
    "group_lasso": partial(_proximal, proximal.group_lasso),
    "magnitude": partial(_masked, dynamic.magnitude),
    "n_m": _straight_through,
    "rigl": partial(_masked, dynamic.rigl),
    "set": partial(_masked, dynamic.random_growth),
}


def share_zeros(average: optax.GradientTransformation, cfg: SparsityConfig) -> optax.GradientTransformation:
    """A link that keeps an `average` of the parameters, which is 0 wherever a parameter is: a sparse model's is sparse.

    The average of a weight that comes back starts from 0, as with rigl and set the weight does. "off" leaves the link
    alone.
    """
    if cfg.method == "off":
        return average

    def update(updates, state, params):
        updates, state = average.update(updates, state, params)
        landed = named(optax.apply_updates(params, updates))
        alive = {name: landed[name] != 0 for site in find(cfg, landed) for name in site.names}
        return updates, map_followers(dynamic.zeroed, state, alive)

    return optax.GradientTransformation(average.init, update)


@jax.jit
def _nonzeros(kernels: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Weights that are not 0, by layer."""

    def one(name, w):
        return jnp.sum(w != 0, range(name.startswith(STACKED), w.ndim), dtype=jnp.uint32)

    return {name: one(name, w) for name, w in kernels.items()}


def sparsity_report(params: Any, bits: int = 16) -> dict[str, Any]:
    """Exact zeros of the weight matrices (`/kernel`, and of a `/table` that has any): counts, densities of each matrix.
    Matrices stored in few bits are left out: their zeros are of the rounding too.

    `packed_bytes` is what they take with `bits` for every weight that is not 0 and 1 bit for every weight, to say
    which: 16 (1 - S) + 1 bits a weight, where a matrix without zeros needs no such bits; `dense_bytes` is all stored.
    """
    matrices = {name: leaf for name, leaf in named(params).items() if name.endswith(("/kernel", "/table"))}
    left = {name: np.atleast_1d(np.asarray(counts)) for name, counts in _nonzeros(matrices).items()}
    kernels = {n: w for n, w in matrices.items() if n.endswith("/kernel") or left[n].sum() < w.size}
    alive, size = {n: int(left[n].sum()) for n in kernels}, {n: leaf.size for n, leaf in kernels.items()}
    packed = sum(bits * alive[n] + (size[n] if alive[n] < size[n] else 0) for n in kernels)
    total = sum(size.values())
    return {
        "density": sum(alive.values()) / total if total else 1.0,
        "zeros": total - sum(alive.values()),
        "weights": total,
        "dense_bytes": bits * total // 8,
        "packed_bytes": -(-packed // 8),
        "densities": {n: [round(float(c) * len(left[n]) / size[n], 6) for c in left[n]] for n in kernels},
    }


def filled_zeros(before: Any, after: Any) -> int:
    """The zeros of weight matrices `before` adapters were merged that are there no more `after` it."""
    zeros, left = (sparsity_report(params)["zeros"] for params in (before, after))
    return max(0, zeros - left)


def filled_warning(filled: int) -> list[str]:
    """What to say of so many filled zeros, and what to do instead; nothing of none."""
    line = (
        f"merging filled {filled:,} zeros of the sparse base; keep the adapter beside its base, or `merge` and `prune` "
        "the merged run"
    )
    return [line] if filled else []
