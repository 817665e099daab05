"""What a config makes of its objective: nothing where nothing is asked, refusals, the same in parts and on a mesh."""

import contextlib
import dataclasses
import functools
import json
from unittest import mock

import jax
import numpy as np
import pytest

from chinchilla_jax.config import (
    AdversarialConfig,
    Config,
    MeshConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
    replace,
    to_dict,
)
from chinchilla_jax.errors import UserError
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.objectives import dense as dense_objective
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.parallel import sharding
from chinchilla_jax.training.program import Program
from chinchilla_jax.training.resume import check_config
from chinchilla_jax.training.step import accumulate
from tests import runs, tiny
from tests.objectives.oracle import BATCH, KEY, MODERN, TIED, config

ALL = [
    {"method": "fgm", "loss": "ce"},
    {"method": "fgm", "loss": "kl", "examples": 2, "init": "uniform"},
    {"method": "pgd", "examples": 2},
    {"method": "freelb"},
    {"method": "vat"},
    {"method": "r3f"},
    {"method": "noise"},
    {"method": "softmax_margin"},
]


def gradients(config: Config, parts: int = 1):
    params = tiny.spiced(config.model)
    return tiny.jit(accumulate(objectives.build(config), parts))(params, BATCH, KEY, 0, ())[:2]


@functools.cache
def text(**settings) -> str:
    """What is computed."""
    made = objectives.build(config(MODERN, **settings)).gradients
    return str(jax.make_jaxpr(made)(tiny.spiced(MODERN), BATCH, KEY, 0, ()))


@pytest.mark.parametrize("settings", ALL, ids=lambda s: "-".join(map(str, s.values())))
def test_a_radius_of_zero_is_the_plain_objective(settings):
    assert text(**{**settings, "radius": 0.0}) == text(method="off") != text(**settings)


def test_off_leaves_the_compiled_program_as_it_is(monkeypatch):
    def lowered(**settings):
        found = []
        monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self, *a: found.append(self.as_text()))
        Program(config(MODERN, rows=8, **settings)).step(8)
        return found[0]

    ours = [lowered(method="off"), lowered(method="fgm", radius=0.0)]
    monkeypatch.setattr(objectives, "build", lambda c, *bound: dense_objective.dense(c.model, c.objective))
    assert ours[0] == ours[1] == lowered(method="off") and "dot" in ours[0]


@pytest.mark.parametrize("settings", [ALL[0], {"method": "pgd", "steps": 2}, ALL[4]], ids=lambda s: s["method"])
def test_the_same_under_remat_with_layers_unrolled_and_other_kernels(settings):
    """What a backward pass computes again, and how, is the attack that it was; logits of what trains alone as well."""
    two = dataclasses.replace(MODERN, layers=2)
    way = dataclasses.replace(two, remat="full", kernels="cpu", scan_unroll=2)
    rolled = gradients(config(two, **settings))
    other = gradients(replace(config(way, **settings), {"objective.positions": "trained"}))
    assert tiny.worst(other, rolled, floor=0.1) < (1e-3 if settings["method"] == "vat" else 1e-4)


@pytest.mark.parametrize("settings", [{"method": "fgm", "loss": "kl"}, {"method": "freelb"}], ids=lambda s: s["method"])
def test_microbatches_attack_the_rows_that_one_batch_would(settings):
    whole, parts = (gradients(config(TIED, **settings), parts) for parts in (1, 2))
    assert tiny.worst(parts, whole, floor=0.1) < 1e-5


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"method": "fmg"}, "fgm"),
        ({"method": "fgm", "radius": -0.1}, "radius -0.1 must not be negative"),
        ({"method": "pgd", "loss": "kl"}, "set --adversarial.loss"),
        ({"method": "noise", "steps": 3}, "use pgd"),
        ({"method": "freelb", "steps": 1}, "never attacks"),
        ({"method": "fgm", "examples": 2}, "to tell them apart"),
        ({"method": "pgd", "delayed": True}, "goes with --adversarial.method fgm"),
        ({"method": "fgm", "fraction": 1.5}, "must lie in (0, 1]"),
        ({"method": "pgd", "rdrop": 1.0}, "alters the main pass"),
        ({"method": "fgm", "delayed": True, "proximity": 1.0}, "alters the main pass"),
        ({"method": "fgm", "delayed": True, "fraction": 0.6}, "at most 0.5"),
        ({"method": "fgm", "delayed": True, "step_size": 0.5}, "step-size 0 or 1"),
        ({"method": "softmax_margin", "norm": "linf"}, "does not look at --adversarial.norm; leave it at l2_token"),
        ({"method": "vat", "step_size": 0.5}, "does not look at --adversarial.step-size"),
        ({"method": "fgm", "probe": 0.2}, "does not look at --adversarial.probe"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_mend(settings, said):
    with pytest.raises(UserError, match="--adversarial") as refused:
        AdversarialConfig(**settings)
    assert said in str(refused.value)


def test_a_run_too_short_for_its_start_is_refused():
    attack, train = AdversarialConfig(method="fgm", start=0.99), TrainConfig(steps=20)
    with pytest.raises(UserError, match=r"start 0\.99 leaves none of 20 steps"):
        Config(adversarial=attack, train=train, optimizer=OptimizerConfig(warmup_steps=0))
    assert dataclasses.replace(attack, start=0.07).first(100) == 7, "0.07 * 100 is a little more in floats"


@pytest.mark.parametrize("method, fits", [("fgm", False), ("noise", False), ("off", True)])
def test_other_microbatches_are_another_attack(method, fits, tmp_path):
    """Which rows are attacked is decided in each of them."""
    made = Config(adversarial=AdversarialConfig(method=method))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(made)))
    with contextlib.nullcontext() if fits else pytest.raises(UserError, match="microbatches was 1 and is 2"):
        check_config(tmp_path, replace(made, {"train.microbatches": 2}), False)


def test_the_command_refuses_with_78():
    for flags in ({"adversarial.method": "fmg"}, {"adversarial.radius": "-0.1"}):
        code, said = runs.call("pretrain", **flags)
        assert code == 78 and len(said.strip().splitlines()) == 1 and "adversarial." in said


# On a mesh, also where the attacked rows cannot be shared evenly

SPREAD = dataclasses.replace(MODERN, d_model=8, heads=4, kv_heads=2, d_ff=16, vocab_size=32)
DOCUMENTS = [[16], [3, 9], [5, 5, 5], [1], [16], [8, 8], [2, 14], [10]]
ROWS = [tiny.packed(DOCUMENTS, 16, 32, seed) for seed in range(4)]


def trained(mesh: tuple[int, int, int], positions: str, steps: int = 3, parts: int = 1, **attack):
    """Losses and gradient norms of a few steps, and the carry after them."""
    config = Config(
        model=SPREAD,
        objective=ObjectiveConfig(positions=positions),
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
        batch = jax.device_put(ROWS[number], sharding.batch_sharding(program.mesh))
        state, metrics = step(state, batch, *program.beside)
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
    (one, kept), (eight, shared) = (
        trained(mesh, which, **attack) for mesh, which in (((1, 1, 1), "all"), ((2, 2, 2), "trained"))
    )
    np.testing.assert_allclose(eight[:, :2], one[:, :2], rtol=1e-5)
    np.testing.assert_allclose(eight[:, 2], one[:, 2], rtol=1e-4)
    if attack.get("delayed"):
        whole = attack["fraction"] == 0.5
        assert shared["direction"].sharding.is_fully_replicated != whole, "four rows over data and fsdp, two nowhere"
        jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, c["batch"]) for c in (kept, shared)))
        a, b = (np.asarray(c["direction"], np.float32) for c in (kept, shared))
        assert (np.abs(a - b) > 1e-2).mean() < 1e-3 and a.any()
