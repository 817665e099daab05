"""What flows between the rooms."""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Batch:
    """Rows of packed documents; every field is (B, L).

    `targets[b, l]` is the token after `tokens[b, l]`; `weights` is 0 where there is no loss; `segments` numbers the
    documents of a row from 1, 0 being padding; `positions` restart at each document. `blocks`, where it is not None,
    holds equal numbers above 0 for tokens of a document that see each other in both directions, and 0 for the others.
    `reference`, likewise, holds at the first token of a document what a reference model makes of it: a log-probability.
    """

    tokens: jax.Array
    targets: jax.Array
    weights: jax.Array
    segments: jax.Array
    positions: jax.Array
    blocks: jax.Array | None = None
    reference: jax.Array | None = None

    def __post_init__(self):
        for name in ("blocks", "reference"):
            if getattr(self, name) is None:
                delattr(self, name)  # the class says None: `vars` of a batch are the arrays that there are


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Sums:
    """A loss as a sum of nats and the weight (tokens) it is over; divided once, at the very end.

    `others` are further losses to report, each with a weight of its own, such as that of perturbed rows.
    """

    loss: jax.Array
    weight: jax.Array
    others: dict[str, "Sums"] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Sums") -> "Sums":
        return jax.tree.map(jnp.add, self, other)

    @classmethod
    def of(cls, losses: jax.Array, weights: jax.Array) -> "Sums":
        """The weighted sum of losses, and the weight."""
        return cls(jnp.sum(weights * losses), jnp.sum(weights))

    @classmethod
    def zero(cls, others: tuple[str, ...] = ()) -> "Sums":
        """Nothing summed yet."""
        zero = jnp.zeros((), jnp.float32)
        return cls(zero, zero, {name: cls(zero, zero) for name in others})
