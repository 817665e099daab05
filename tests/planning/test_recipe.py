"""A config for a size and a number of tokens, and machines by name."""

import json

import numpy as np
import pytest

from chinchilla_jax.config import Config, ModelConfig, from_dict
from chinchilla_jax.errors import UserError
from chinchilla_jax.planning import asked as question
from chinchilla_jax.planning import plan as planner
from chinchilla_jax.planning.recipe import Machine, fastest, parse_chips, recipe
from chinchilla_jax.planning.roofline import roofline
from chinchilla_jax.scaling import published
from chinchilla_jax.scaling.counts import sizes

LAW = published.published("epoch-exact").surface


@pytest.mark.parametrize("text, kind, chips", [
    ("v5p-256", "v5p", 128), ("v5e-16", "v5e", 16), ("v5p:8x8x4", "v5p", 256), ("h100-8", "h100", 8),
])  # fmt: skip
def test_machines_by_name(text, kind, chips):
    assert parse_chips(text) == Machine(kind, chips)


@pytest.mark.parametrize("text", ["v5p-7", "v5p", "v5p:8x", "v5e-0", "8"])
def test_other_names_are_refused(text):
    with pytest.raises(UserError, match="--chips"):
        parse_chips(text)


def total(model: ModelConfig) -> float:
    """Parameters by formula."""
    return sizes(model).total


@pytest.mark.parametrize("C", 10.0 ** np.arange(12, 26))
def test_its_config_is_one_that_trains(C):
    """Over fourteen orders of magnitude: near in size and tokens, whole batches, a schedule inside the run."""
    N, D = LAW.optimum(C)
    made = recipe(Config(), N, D, total, Machine())
    train, rate = made.train, made.optimizer
    assert total(made.model) == pytest.approx(N, rel=0.15)
    assert train.steps * train.batch_size * train.seq_len == pytest.approx(D, rel=0.02)
    assert train.steps >= 100 and 1e-5 < rate.peak_lr < 3e-2
    assert rate.warmup_steps <= 0.03 * train.steps + 1 and made.checkpoint.every <= train.steps
    assert from_dict(Config, json.loads(json.dumps(planner.settings.to_dict(made)))) == made


@pytest.mark.parametrize("chips", ["v5e-16", "v5p:8x8x4", "h100-8"])
def test_a_machines_mesh_divides_the_model_and_the_batch(chips):
    said = question.Asked({}, 72 * 3600.0, parse_chips(chips), law="epoch-exact")
    planned = planner.plan(Config(), said)
    made, price = from_dict(Config, planned["config"]), planned["price"]
    shards = made.mesh.data * made.mesh.fsdp
    assert shards * made.mesh.tensor == said.machine.chips and made.model.d_model % made.mesh.fsdp == 0
    assert made.train.batch_size // made.train.microbatches % shards == 0
    assert (made.model.kv_heads or made.model.heads) % made.mesh.tensor == 0
    assert price["memory_bytes"] < price["memory_capacity_bytes"]
    assert price["seconds"] == pytest.approx(72 * 3600, rel=0.05)


def test_the_mesh_is_the_fastest_that_fits():
    """Against every mesh of the machine by the same formula, and well above what the first that fits had (24 %)."""
    said = question.Asked({"flops": 1e22}, machine=parse_chips("v5p-256"))
    found = planner.plan(Config(), said)
    made = from_dict(Config, found["config"])
    assert found["price"]["mfu"] > 0.4
    model, train, here = made.model, made.train, 128
    least = min(
        roofline(model, train.batch_size * 2048, 2048, here, "v5p", fsdp, tensor, micro)["expected_seconds"]
        for tensor in (1, 2, 4, 8) for fsdp in (8, 16, 32, 64, 128) for micro in (1, 2, 4, 8)
        if fsdp * tensor <= here and train.batch_size % (micro * here // tensor) == 0 and model.d_model % fsdp == 0
        and roofline(model, train.batch_size * 2048, 2048, here, "v5p", fsdp, tensor, micro)["memory_bytes"] < 85e9
    )  # fmt: skip
    assert found["price"]["step_seconds"] <= least * (1 + 1e-9)
    assert fastest(model, 1, 2048, parse_chips("rtx4090-1")) is None, "nine billion parameters on one such card"
