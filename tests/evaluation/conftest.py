"""A tiny run and its plain forward pass, and a model without a run."""

import jax
import numpy as np
import pytest

from chinchilla_jax.training.load import load
from chinchilla_jax.types import Batch
from tests import runs, tiny
from tests.model import twin


@pytest.fixture(scope="module")
def loaded(whole_run):
    """The tiny run on the devices there are."""
    return load(runs.config(whole_run), str(whole_run))


@pytest.fixture(scope="module")
def log_p(loaded):
    """ids (n,) -> log p of what follows each, (n, V), by the twin; n is 64 at most."""
    cfg = loaded.program.config.model
    params = jax.tree.map(lambda w: jax.numpy.asarray(np.asarray(w)), loaded.params)

    @jax.jit
    def whole(tokens):
        segments, zeros = (tokens >= 0).astype(int), jax.numpy.zeros_like(tokens)
        batch = Batch(tokens, zeros, zeros, segments, jax.numpy.arange(64)[None])
        return jax.nn.log_softmax(twin.logits(params, twin.forward(params, batch, cfg), cfg)[0])

    def of(ids):
        return np.asarray(whole(np.array([[*ids, *[0] * (64 - len(ids))]], np.int32)))[: len(ids)]

    return of


@pytest.fixture(scope="module")
def model():
    """A shape and parameters of it."""
    return tiny.MODERN, tiny.spiced(tiny.MODERN)


@pytest.fixture(scope="module")
def batch():
    """Eight rows of packed documents for `model`."""
    rows = [[9, 4, 3], [16], [5, 5], [12, 4], [2, 14], [7], [16], [10, 6]]
    return jax.tree.map(jax.numpy.asarray, tiny.packed(rows, 16, tiny.MODERN.vocab_size))
