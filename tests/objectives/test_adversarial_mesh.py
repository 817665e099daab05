"""The same attack on one device and on eight, also where the attacked rows cannot be shared evenly."""

import functools
from unittest import mock

import jax
import numpy as np
import pytest

from chinchilla_jax.config import AdversarialConfig, Config, MeshConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.training.program import Program
from tests import tiny
from tests.training.test_step import MODELS, batch, place


def trained(mesh: tuple[int, int, int], steps: int = 3, parts: int = 1, **attack):
    """Losses and gradient norms of a few steps, and the carry after them."""
    config = Config(
        model=MODELS["modern"],
        mesh=MeshConfig(*mesh),
        optimizer=OptimizerConfig(peak_lr=3e-3, warmup_steps=0),
        train=TrainConfig(steps=10, seq_len=16, batch_size=8, microbatches=parts),
        adversarial=AdversarialConfig(**{"radius": 0.5, "start": 0.0} | attack),
    )
    program = Program(config, meshes.build(config.mesh, jax.devices()[: np.prod(mesh)]))
    quick = functools.partialmethod(jax.stages.Lowered.compile, tiny.QUICK)
    with mock.patch.object(jax.stages.Lowered, "compile", quick):
        step = program.step(8)
    state, rows = program.initial(), []
    for number in range(steps):
        state, metrics = step(state, place(program, batch(number)), *program.beside)
        rows.append([float(metrics[name]) for name in ("loss", "loss_attacked", "grad_norm")])
    return np.array(rows), state.carry


@pytest.mark.parametrize(
    "attack",
    [
        {"method": "fgm", "loss": "kl", "fraction": 0.125},
        {"method": "fgm", "delayed": True, "fraction": 0.5, "loss": "ce"},
        {"method": "fgm", "delayed": True, "fraction": 0.25, "loss": "kl"},
        {
            "method": "fgm",
            "loss": "kl",
            "fraction": 0.25,
            "start": 0.3,
            "every": 2,
            "proximity": 0.5,
            "parts": 2,
            "steps": 4,
        },
    ],
    ids=[
        "one-row-on-four-shards",
        "delayed-one-row-a-shard",
        "delayed-two-rows-on-four-shards",
        "late-every-other-with-microbatches",
    ],
)
def test_one_device_and_eight(attack):
    (one, kept), (eight, shared) = (trained(mesh, **attack) for mesh in ((1, 1, 1), (2, 2, 2)))
    np.testing.assert_allclose(eight[:, :2], one[:, :2], rtol=1e-5)
    np.testing.assert_allclose(eight[:, 2], one[:, 2], rtol=1e-4)
    if attack.get("delayed"):
        whole = attack["fraction"] == 0.5
        assert shared["direction"].sharding.is_fully_replicated != whole, "four rows over data and fsdp, two nowhere"
        jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, c["batch"]) for c in (kept, shared)))
        a, b = (np.asarray(c["direction"], np.float32) for c in (kept, shared))
        assert (np.abs(a - b) > 1e-2).mean() < 1e-3 and a.any()
