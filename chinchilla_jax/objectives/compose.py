"""One pass over all rows, which a method may alter, and terms beside it: the gradients of every objective with attacks.

A term is (params, batch, key, step, carry, pass_) -> (gradients of the parameters, and of the pass's hidden states or
None where they are a constant to it), Sums of what it shows. The pass is made once for all of them; its gradients are
pulled back once, with what the terms have asked of its hidden states, and once more where something needs dCE/de or the
losses of tokens beforehand and a term moves the hidden states.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.objectives.objective import Objective
from chinchilla_jax.objectives.rows import add, spread, when
from chinchilla_jax.types import Batch, Sums


class Main(NamedTuple):
    """What the pass over all rows reads, and what it shows.

    `batch` has the weights of the loss, `delta_nLD` is added to the embeddings of its first rows, `head` stands in for
    the base's; `shows(losses_BL, aux) -> Sums` are the metrics, from the loss of every token and what the head gives.
    """

    batch: Batch
    delta_nLD: jax.Array | None = None
    head: Callable | None = None
    shows: Callable[..., Sums] | None = None


class Pass(NamedTuple):
    """What it gave: hidden states (B, L, D), and for its first rows what was added and dCE/de, where that is wanted."""

    hidden_BLD: jax.Array
    delta_nLD: jax.Array | None
    slope_nLD: jax.Array | None


class Term(NamedTuple):
    """`find` as above, when it is active, for how many of B rows it needs a slope, and the name of what it shows."""

    find: Callable | None
    active: Callable[[Any], bool | jax.Array] = lambda step: True
    slopes: Callable[[int], int] = lambda rows: 0
    shows: str = ""
    learns: bool = False  # moves the hidden states of the pass
    follow: Callable | None = None  # (params, carry, batch, pass_) -> carry, in every step
    keeps: dict = {}  # fields of the objective


def composed(base: Objective, width: int, terms: list[Term], alter: Callable | None = None) -> Objective:
    """`base` with all terms; `alter(params, batch, key, step, carry) -> Main` says what the pass over all rows is."""
    alter, learns = alter or (lambda params, batch, *_: Main(batch)), any(term.learns for term in terms)

    def gradients(params, batch: Batch, key, step, carry):
        B, L = batch.tokens.shape
        main, n = alter(params, batch, key, step, carry), max([term.slopes(B) for term in terms], default=0)
        delta_nLD = jnp.zeros((n, L, width)) if n and main.delta_nLD is None else main.delta_nLD

        def loss(params, delta_nLD, weights_BL):
            weighted = dataclasses.replace(main.batch, weights=weights_BL)
            delta_BLD = None if delta_nLD is None else spread(delta_nLD, B)
            return base.loss(params, weighted, key, delta_BLD, main.head or base.head)

        (total, aux), pull = jax.vjp(loss, params, delta_nLD, main.batch.weights)
        one, none = jnp.ones_like(total), jax.tree.map(jnp.zeros_like, aux)
        early = n > 0 or main.shows is not None
        grads, slope_nLD, losses_BL = pull((one, none)) if early else (zeros(params), None, None)
        made, found, others = Pass(aux, delta_nLD, slope_nLD), (grads, none if learns else None), {}
        for term in terms:
            if term.find:

                def yes(term=term, found=found, carry=carry):
                    (more, asked_BLD), shown = term.find(params, batch, key, step, carry, made)
                    asked_BLD = found[1] if asked_BLD is None else found[1] + asked_BLD.astype(found[1].dtype)
                    return (add(found[0], more), asked_BLD), shown

                found, shown = when(term.active(step), yes, lambda found=found: (found, Sums.zero()))
                others |= {term.shows: shown} if term.shows else {}
            carry = term.follow(params, carry, batch, made) if term.follow else carry
        grads, asked_BLD = found
        if learns or not early:
            grads = add(grads, pull((jnp.zeros_like(total) if early else one, asked_BLD if learns else none))[0])
        shown = main.shows(losses_BL, aux) if main.shows else Sums(total, jnp.sum(batch.weights))
        for name, value in shown.others.items():
            others[name] = value + others[name] if name in others else value
        return grads, dataclasses.replace(shown, others=others), carry

    kept = {name: value for term in terms for name, value in term.keeps.items()}
    names = tuple(dict.fromkeys(term.shows for term in terms if term.shows))
    return base._replace(gradients=gradients, others=names, **kept)


def zeros(tree):
    """Zeros like a tree's arrays."""
    return jax.tree.map(jnp.zeros_like, tree)
