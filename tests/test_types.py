"""What flows between the rooms: batches whose optional fields are absent, and sums that add up."""

import jax
import numpy as np

from chinchilla_jax.types import Batch, Sums

FIELDS = ("tokens", "targets", "weights", "segments", "positions")


def batch(**more) -> Batch:
    return Batch(*(np.full((2, 3), number) for number in range(5)), **more)


def test_the_arrays_of_a_batch_are_those_that_are_there():
    plain = batch()
    assert tuple(vars(plain)) == FIELDS and plain.blocks is None and plain.reference is None
    assert len(jax.tree.leaves(plain)) == 5
    both = batch(blocks=np.ones((2, 3)))
    assert tuple(vars(both)) == (*FIELDS, "blocks") and len(jax.tree.leaves(both)) == 6


def test_a_batch_comes_back_from_its_leaves():
    for one in (batch(), batch(reference=np.zeros((2, 3)))):
        again = jax.tree.map(lambda x: x + 1, one)
        assert type(again) is Batch and vars(again).keys() == vars(one).keys()
        assert all((getattr(again, name) == value + 1).all() for name, value in vars(one).items())


def test_sums_add_up_with_all_their_others():
    """A loss is divided once, at the end: the mean of two means is another number."""
    one = Sums(np.float32(6), np.float32(2), {"clean": Sums(np.float32(1), np.float32(1))})
    two = Sums(np.float32(1), np.float32(1), {"clean": Sums(np.float32(5), np.float32(2))})
    total = one + two + Sums.zero(("clean",))
    assert (float(total.loss), float(total.weight)) == (7, 3)
    assert (float(total.others["clean"].loss), float(total.others["clean"].weight)) == (6, 3)
    assert Sums.zero().others == {} and Sums.zero().loss.dtype == np.float32
