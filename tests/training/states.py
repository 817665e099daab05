"""A small training state of every kind of leaf, its checkpoints and what injures them; for subprocesses as well."""

import dataclasses
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chinchilla_jax.config import CheckpointConfig
from chinchilla_jax.training import restore
from chinchilla_jax.training.checkpoint import Checkpoints


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
    context.set_forkserver_preload([saving.__module__, "jaxlib.mlir.dialects.mhlo"])
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


META = {"config": {"train": {"steps": 40}}, "data": "f00d"}


def opened(folder, **changes) -> Checkpoints:
    return Checkpoints(folder, CheckpointConfig(**changes), meta=META)


def restored(folder, devices=8, **changes):
    return restore.newest(folder, abstract(devices), level=changes.pop("level", "hash"), **changes)


def files_of(step_folder: Path) -> list[Path]:
    return sorted(p for p in step_folder.rglob("*") if p.is_file())


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def plain(step: int):
    """A state that needs no compilation, since each killed process would pay it again."""
    content = np.random.default_rng(step).normal(size=(64, 512)).astype(np.float32)
    return {"w": jax.device_put(content, abstract(8).params["emb"].sharding)}


def save_for_ever(checkpoints, committed) -> None:
    """Save step after step; `committed` tells the newest that is known to be whole."""
    with checkpoints:
        step = max(checkpoints.steps(), default=0)
        while True:
            step += 1
            checkpoints.save(step, plain(step))
            if step % 2 == 0:
                checkpoints.wait()
                committed.value = step
