"""A small tokenizer, an engine with two models, a scheduler of three slots: for the tests of inference and serving."""

import dataclasses
import threading
import time

import jax
import pytest

from chinchilla_jax.config import DataConfig, MeshConfig
from chinchilla_jax.data import tokenizer_train
from chinchilla_jax.data.tokenizer import Tokenizer
from chinchilla_jax.inference.engine import Engine
from chinchilla_jax.inference.scheduler import Scheduler
from chinchilla_jax.parallel import mesh
from chinchilla_jax.parallel.sharding import replicated
from tests import tiny


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A small tokenizer with byte pieces."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    tokenizer_train.train(lambda: ["the sea and the wind\n" * 20] * 5, DataConfig(vocab_size=290), path)
    return Tokenizer(path)


@pytest.fixture(scope="session")
def engine(tokenizer):
    """An engine and two models, on a mesh as a loaded run is."""
    cfg = dataclasses.replace(tiny.MODERN, layers=1, kernels="cpu", vocab_size=tokenizer.size)
    made, where = Engine(cfg, tokenizer.size, steps=4), replicated(mesh.build(MeshConfig(), jax.devices()[:1]))
    models = {name: jax.device_put(tiny.spiced(cfg, seed), where) for seed, name in enumerate(("tiny", "other"))}
    return made, {name: made.prepare(params) for name, params in models.items()}


@pytest.fixture
def scheduler(engine):
    """Three slots of 128 tokens, four more in the queue, no beginnings of prompts kept; ended after the test."""
    made = Scheduler(*engine, slots=3, capacity=128, queue=4)
    made.start()
    until(lambda: made.status == "ok")
    yield made
    made.drain()
    for request in filter(None, made.running):
        made.cancel(request)
    made.thread.join(30)
    assert not made.thread.is_alive() and made.status == "draining"


def until(ready, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Gate:
    """An engine that decodes while it is open."""

    def __init__(self, engine):
        self.engine, self.open = engine, threading.Event()

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def decode(self, *args):
        """As the engine's, when the gate opens."""
        assert self.open.wait(60)
        return self.engine.decode(*args)
