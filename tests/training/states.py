"""A small training state of every kind of leaf, for the tests of this folder and their subprocesses."""

import dataclasses
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Average(NamedTuple):
    average: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    step: jax.Array
    params: Any
    opt_state: Any
    carry: Any


def mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("fsdp",))


def create(step) -> State:
    """A state that is a function of `step`, so that a restored one can be told from its neighbours."""
    key = jax.random.fold_in(jax.random.key(7), step)
    params = {"blocks": {"w": jax.random.normal(key, (64, 160)), "b": jnp.zeros(16) + step}, "emb": jnp.ones((8, 32))}
    carry = {
        "key": key,
        "half": jax.random.normal(key, (24, 8)).astype(jnp.bfloat16),
        "mask": jnp.array([True, False, True]),
        "bytes": jnp.arange(40, dtype=jnp.uint8),
        "none": None,
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf]),
    }
    opt_state = (*optax.adam(1e-3).init(params), Average(jax.tree.map(lambda x: x * 2, params)))
    return State(jnp.int32(step), params, opt_state, carry)


def abstract(devices: int) -> State:
    on = mesh(devices)

    def place(x):
        split = x.ndim == 2 and x.shape[0] % devices == 0
        where = NamedSharding(on, PartitionSpec("fsdp") if split else PartitionSpec())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return jax.tree.map(place, jax.eval_shape(create, 0))


def make(step: int, devices: int = 8) -> State:
    shardings = jax.tree.map(lambda x: x.sharding, abstract(devices))
    return jax.jit(create, out_shardings=shardings)(step)


def bits(x: Any) -> np.ndarray:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.ascontiguousarray(np.asarray(x)).reshape(-1).view(np.uint8)


def assert_same(a: Any, b: Any) -> None:
    """Equal in structure, type and every bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_array_equal(bits(x), bits(y))


def kills(saving: Callable, place: str, trials: int, seed: int) -> Iterator[tuple[int, int]]:
    """Kill `saving(place, asynchronous, committed)` at random moments; the step known to be whole before and after."""
    draw, context = random.Random(seed), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jax", "optax", "orbax.checkpoint"])
    committed = context.Value("i", 0, lock=False)  # a lock would die with its holder
    for trial in range(trials):
        before = committed.value
        process = context.Process(target=saving, args=(place, trial % 2 == 0, committed))
        process.start()
        deadline = time.monotonic() + 60
        while committed.value == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        yield before, committed.value
