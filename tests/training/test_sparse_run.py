"""Runs that make zeros: resumed in the middle of it, on another mesh, skipped, reported."""

import functools
import json
import shutil
from unittest import mock

import jax
import numpy as np
import pytest

from chinchilla_jax.config import Config, MeshConfig, ModelConfig, OptimizerConfig, SparsityConfig, TrainConfig
from chinchilla_jax.model.presets import FAMILIES
from chinchilla_jax.optim.paths import named
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.training.program import Program
from tests import runs, tiny

pytestmark = pytest.mark.usefixtures("compiled_once")
SPARSE = {"sparsity.every": 2, "optimizer.ema-decay": 0.9, **runs.SILENT}
METHODS = {
    "magnitude": {"sparsity.method": "magnitude"},
    "rigl": {"sparsity.method": "rigl", "sparsity.start": 0.0, "sparsity.distribution": "erk"},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_while_its_mask_changes_goes_on_to_the_same_bytes(tmp_path, tiny_store, method):
    """The mask changes in the updates 5 to 15 (0 to 15); the second run goes on from step 10, inside a change."""
    settings = {**SPARSE, **METHODS[method]}
    whole = runs.trained(tmp_path / "whole", tiny_store, **settings)
    again = shutil.copytree(whole, tmp_path / "again")
    runs.forget(again, 10)
    runs.trained(again, tiny_store, **settings)
    runs.assert_same_run(again, whole)

    halfway, end = (named(runs.state(whole, step).opt_state[0].masks) for step in (10, 20))
    assert all((halfway[name] != end[name]).any() for name in end)
    rows = [row["density"] for row in runs.rows(whole) if "density" in row]
    assert rows[-1] == pytest.approx(0.25, abs=0.01) and len(rows) == 3
    assert any(leaf.get("packed") for leaf in runs.leaves(whole, 20).values())

    report = runs.ask("evaluate", **{"run-dir": whole, "data.store": tiny_store})
    state = runs.state(whole)
    kernels = [np.asarray(w) for name, w in named(state.opt_state[1].average).items() if name.endswith("/kernel")]
    zeros = sum(int((w == 0).sum()) for w in kernels)
    assert report["zeros"] == zeros > 0.7 * report["density"] * sum(w.size for w in kernels)
    assert json.loads((whole / "evaluation.json").read_text())["densities"] == report["densities"]


SHAPE = {"layers": 2, "d_model": 16, "heads": 8, "head_dim": 4, "d_ff": 24, "vocab_size": 64, "scan_unroll": 1}


def program(mesh: tuple[int, int, int], **sparsity) -> Program:
    config = Config(
        model=ModelConfig(**FAMILIES["modern"], **SHAPE, kv_heads=4, kernels="reference"),
        mesh=MeshConfig(*mesh),
        optimizer=OptimizerConfig(peak_lr=3e-3, warmup_steps=4, ema_decay=0.9),
        sparsity=SparsityConfig(every=3, **sparsity),
        train=TrainConfig(steps=16, seq_len=16, batch_size=8, microbatches=2),
    )
    return Program(config, meshes.build(config.mesh, jax.devices()[: np.prod(mesh)]))


def batch(step: int):
    documents = [[16], [3, 9], [5, 5, 5], [1], [16], [8, 8], [2, 14], [10]]
    return tiny.packed(documents, 16, 64, seed=step % 4)


def place(run: Program, whole):
    return run.place(lambda rows: jax.tree.map(lambda x: x[rows], whole), 8)


def compiled(run: Program):
    """The step, without XLA's later passes: half the time to compile."""
    quick = functools.partialmethod(jax.stages.Lowered.compile, tiny.QUICK)
    with mock.patch.object(jax.stages.Lowered, "compile", quick):
        return run.step(8)


def test_one_device_and_eight_make_the_same_masks_and_losses():
    """RigL prunes by magnitude first and moves its mask then, so it stands for both."""
    found, sparsity = [], {"method": "rigl", "start": 0.0}
    for mesh in ((1, 1, 1), (2, 2, 2)):
        run, losses = program(mesh, **sparsity), []
        step, state = compiled(run), run.initial()
        for number in range(16):
            state, metrics = step(state, place(run, batch(number)))
            losses.append(float(metrics["loss"]))
        found.append((losses, state.opt_state[0].masks))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    for name, mask in found[1][1].items():
        np.testing.assert_array_equal(mask, found[0][1][name], err_msg=name)
        assert mask.sharding == named(state.params)[name].sharding and not np.asarray(mask).all()


def test_a_skipped_step_changes_no_mask_and_no_count():
    run = program((1, 1, 1), method="magnitude", start=0.0, stop=0.0)
    step, bad = compiled(run), batch(0)
    bad.weights[3, 0] = np.nan
    state, metrics = step(run.initial(), place(run, bad))
    inner = state.opt_state[0]
    assert (
        int(metrics["skipped"]) == 1
        and int(inner.count) == 0
        and all(np.asarray(m).all() for m in inner.masks.values())
    )
    state, _ = step(state, place(run, batch(0)))
    inner, params = state.opt_state[0], named(state.params)
    assert int(inner.count) == 1
    for name, mask in inner.masks.items():
        np.testing.assert_array_equal(np.asarray(params[name]) != 0, mask)
        assert np.mean(mask) == 0.25


def test_unfitting_sparsity_ends_with_one_line(tmp_path, tiny_store):
    for changes, words in (
        ({"sparsity.pattern": "block:5x5"}, "block:5x5 does not divide blocks/"),
        ({"sparsity.include": "bananas"}, "'bananas' matches no parameter"),
        ({"sparsity.target": 1.0}, "must lie in [0, 1)"),
        ({"sparsity.method": "lottery"}, "lottery"),
        ({"sparsity.method": "rigl", "sparsity.pattern": "neurons"}, "choose unstructured, rows, columns"),
    ):
        code, said = runs.pretrain(tmp_path / "none", tiny_store, **{"sparsity.method": "magnitude", **changes})
        assert code == 78 and words in said and "Traceback" not in said and len(said.strip().splitlines()) == 1, said
