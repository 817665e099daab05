"""What is zeroed together: weights fall into units, and the units of some matrices stand and fall as one."""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import require

STACKED = ("blocks/", "top/")  # the stacks of model/stacks.py: the first dimension of what lies below is the layers


def matrix(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(layers, inputs, outputs) of a parameter; only the projection out of attention contracts two dimensions.

    What is no matrix, such as a bias of heads, is a `UserError`.
    """
    stacked = name.startswith(STACKED)
    rest, contract = shape[1:] if stacked else shape, 2 if name.split("/")[-2:-1] == ["out"] else 1
    found = len(rest) > contract and not name.endswith("bias")
    require(found, f"parameter {name} is no matrix; leave it out of --sparsity.include")
    return shape[0] if stacked else 1, math.prod(rest[:contract]), math.prod(rest[contract:])


class View(NamedTuple):
    """How a weight falls into units: `split` is a reshape of it with layers first; units lie along the `kept` axes."""

    split: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def summed(self) -> tuple[int, ...]:
        """The axes inside a unit."""
        return tuple(axis for axis in range(len(self.split)) if axis not in self.kept)

    def spread(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Values of the units as values of the weights."""
        return jnp.broadcast_to(jnp.expand_dims(units, self.summed), self.split).reshape(shape)


class Site(NamedTuple):
    """Weights whose units stand and fall together: one matrix, or all that share a head or a neuron.

    Units have shape (layers, ...). `n_m`: how many stay of how many neighbours along axis 1, where the pattern says so.
    """

    names: tuple[str, ...]
    views: tuple[View, ...]
    matrix: tuple[int, int, int]
    n_m: tuple[int, int] | None = None

    @property
    def units(self) -> int:
        """Units of a layer."""
        view = self.views[0]
        return math.prod(view.split[axis] for axis in view.kept[1:])

    @property
    def unit_size(self) -> int:
        """Weights of a unit."""
        return sum(math.prod(view.split[axis] for axis in view.summed) for view in self.views)

    def scores(self, weights: dict[str, jax.Array]) -> jax.Array:
        """The L2 norm of every unit: |w| where a unit is a weight."""
        parts = [weights[name].astype(jnp.float32).reshape(view.split) for name, view in zip(self.names, self.views)]
        if not self.views[0].summed:
            return jnp.abs(parts[0])
        return jnp.sqrt(sum(jnp.sum(jnp.square(part), view.summed) for part, view in zip(parts, self.views)))

    def alive(self, masks: dict[str, jax.Array]) -> jax.Array:
        """The units whose weights a mask keeps."""
        view = self.views[0]
        return jnp.any(masks[self.names[0]].reshape(view.split), view.summed)

    def spread(self, units: jax.Array, like: dict[str, Any]) -> dict[str, jax.Array]:
        """Values of the units as values of every weight."""
        return {name: view.spread(units, like[name].shape) for name, view in zip(self.names, self.views)}


def choose(names, include: tuple[str, ...], exclude: tuple[str, ...]) -> list[str]:
    """The names that some `include` finds and no `exclude`; a rule that finds nothing is a `UserError`."""
    for flag, rules in (("include", include), ("exclude", exclude)):
        for rule in rules:
            found = any(re.search(rule, name) for name in names)
            require(found, f"--sparsity.{flag}: {rule!r} matches no parameter, such as {next(iter(names))}")
    chosen = [name for name in names if any(re.search(rule, name) for rule in include)]
    chosen = [name for name in chosen if not any(re.search(rule, name) for rule in exclude)]
    require(bool(chosen), "--sparsity.exclude leaves nothing of --sparsity.include; make one of them narrower")
    return chosen


def sites(shapes: dict[str, tuple[int, ...]], pattern: str) -> tuple[Site, ...]:
    """The sites of parameters under a pattern of `SparsityConfig`, in the order of their names.

    `rows` are inputs and `columns` outputs of a matrix; N:M runs along the inputs, which the product contracts; a
    neuron is a hidden unit in gate, up and down; a head is one of keys and values with the query heads that read it.
    Heads and neurons leave alone what has none. A pattern that does not divide a matrix is a `UserError`.
    """
    kind, numbers = parse(pattern)
    return TIED[kind](shapes) if kind in TIED else tuple(SINGLE[kind](name, shapes[name], *numbers) for name in shapes)


def parse(pattern: str) -> tuple[str, tuple[int, ...]]:
    """`2:4` -> ("n_m", (2, 4)); `block:16x8` -> ("block", (16, 8)); a word -> (word, ())."""
    numbers = tuple(map(int, re.findall(r"\d+", pattern)))
    return (pattern.split(":")[0] if not pattern[0].isdecimal() else "n_m"), numbers


def _unstructured(name, shape):
    matrix_NPQ = matrix(name, shape)
    split = shape if name.startswith(STACKED) else (1, *shape)  # no reshape of what may be sharded
    return Site((name,), (View(split, tuple(range(len(split)))),), matrix_NPQ)


def _n_m(name, shape, n, m):
    N, P, Q = matrix(name, shape)
    require(P % m == 0, f"--sparsity.pattern {n}:{m} does not divide the {P} inputs of {name}")
    return Site((name,), (View((N, P, Q), (0, 1, 2)),), (N, P, Q), (n, m))


def _block(name, shape, rows, columns):
    N, P, Q = matrix(name, shape)
    divides = P % rows == 0 and Q % columns == 0
    require(divides, f"--sparsity.pattern block:{rows}x{columns} does not divide {name}, which is {P}x{Q}")
    return Site((name,), (View((N, P // rows, rows, Q // columns, columns), (0, 1, 3)),), (N, P, Q))


def _lines(axis):
    def one(name, shape):
        size = matrix(name, shape)
        return Site((name,), (View(size, (0, axis)),), size)

    return one


SINGLE = {"unstructured": _unstructured, "n_m": _n_m, "block": _block, "rows": _lines(1), "columns": _lines(2)}


def _tied(shapes, layer: str, view) -> tuple[Site, ...]:
    """One site for every `layer` (a part of the path), of the parameters that `view` finds its units in."""
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        owner, found, _ = name.rpartition(f"/{layer}/")
        if found:
            groups.setdefault(owner, {})[name] = shape
    require(bool(groups), f"--sparsity.pattern: no parameter of --sparsity.include lies in {layer}")
    return tuple(
        Site(tuple(group), tuple(view(name, group) for name in group), matrix(*next(iter(group.items()))))
        for group in groups.values()
    )


def _neurons(name, group):
    N, P, Q = matrix(name, group[name])
    return View((N, P, Q), (0, 1) if name.endswith("/down/kernel") else (0, 2))


def _heads(name, group):
    # What contracts into the residual stream has its heads first, behind the layers; the others second.
    def at(name):
        return 1 if name.endswith("/out/kernel") else 2

    heads = min(shape[at(one)] for one, shape in group.items())
    N, P, Q = matrix(name, group[name])
    return View((N, heads, P // heads, Q), (0, 1)) if at(name) == 1 else View((N, P, heads, Q // heads), (0, 2))


TIED = {
    "heads": lambda shapes: _tied(shapes, "attention", _heads),
    "neurons": lambda shapes: _tied(shapes, "mlp", _neurons),
}
