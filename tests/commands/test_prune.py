"""The prune command: from a run to a run."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.commands import prune
from chinchilla_jax.config import CheckpointConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.optim import sparsefile
from chinchilla_jax.training import restore
from chinchilla_jax.training.checkpoint import Checkpoints
from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.parametrize("method, words, density", [
    ("wanda", ("--target", "0.75"), 0.25),
    ("sparsegpt", ("--pattern", "2:4"), 0.5),
])  # fmt: skip
def test_a_pruned_run_is_evaluated_and_generates(whole_run, tmp_path, method, words, density):
    before = runs.leaves(whole_run, 20)
    out = tmp_path / "a" / "pruned"
    flags = {"run-dir": whole_run, "out": out, "method": method, "calibration-tokens": 200}
    report = runs.ask("prune", *words, **flags)
    assert report["sparsity"]["density"] == pytest.approx(density, abs=0.01)
    assert report["after"]["loss_nats_per_token"] != report["before"]["loss_nats_per_token"]
    assert report["calibration_tokens"] == 256 and report["wrote"] == [str(out)]
    assert json.loads((out / "prune.json").read_text())["after"] == report["after"]
    assert json.loads((out / "origin.json").read_text())["source"] == str(whole_run)
    found = runs.ask("evaluate", **{"run-dir": out})
    assert found["step"] == 20 and runs.leaves(whole_run, 20) == before
    code, said = runs.call("generate", **{"run-dir": out, "max-new-tokens": 2})
    assert code == 0, said
    code, said = runs.call("prune", **flags)
    assert code == 78 and said.count("\n") == 1 and "nothing is overwritten" in said
    packed = tmp_path / "packed"
    kept = runs.ask("export", **{"run-dir": out, "format": "sparse", "out": packed})
    assert kept["stored_bytes"] == (packed / sparsefile.FILE).stat().st_size < kept["dense_bytes"]
    if method == "wanda":
        again = runs.ask("evaluate", **{"run-dir": packed})
        assert again["loss_nats_per_token"] == found["loss_nats_per_token"]
        assert again["stored_bytes"] == kept["stored_bytes"] < found["stored_bytes"]
    abstract = jax.tree.map(jnp.asarray, restore.load_params(out / "checkpoints", runs.state(whole_run).params).state)
    back = restore.unpacked(packed / sparsefile.FILE, abstract).state
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(abstract)))


def test_a_run_with_dead_neurons_is_cut_to_a_smaller_run(copy, tmp_path):
    params = jax.tree.map(np.array, runs.state(copy).params)
    units = params["blocks"]["mlp"]["down"]["kernel"].shape[1]
    params["blocks"]["mlp"]["down"]["kernel"][:, : units // 4] = 0
    meta = json.loads((copy / "checkpoints" / "20" / "manifest.json").read_text())["meta"]
    with Checkpoints(copy / "checkpoints", CheckpointConfig(), meta=meta) as checkpoints:
        checkpoints.save(21, {"params": jax.tree.map(jnp.asarray, params)}, wait=True)
    report = runs.ask("export", **{"run-dir": copy, "format": "sliced", "out": tmp_path / "cut"})
    assert runs.config(tmp_path / "cut").model.d_ff == units - units // 4
    assert report["stored_bytes"] < report["dense_bytes"]
    before, after = (runs.ask("evaluate", **{"run-dir": folder}) for folder in (copy, tmp_path / "cut"))
    assert after["loss_nats_per_token"] == pytest.approx(before["loss_nats_per_token"], rel=1e-5)
    assert runs.call("generate", **{"run-dir": tmp_path / "cut", "max-new-tokens": 2})[0] == 0


def test_the_average_is_pruned_where_the_run_keeps_one(copy, tmp_path):
    """A run with an average of its parameters is evaluated by it, and so is what came of it."""
    params = jax.tree.map(jnp.asarray, runs.state(copy).params)
    average = jax.tree.map(lambda leaf: 0.9 * leaf, params)
    meta = json.loads((copy / "checkpoints" / "20" / "manifest.json").read_text())["meta"]
    with Checkpoints(copy / "checkpoints", CheckpointConfig(), meta=meta) as checkpoints:
        checkpoints.save(21, {"params": params, "average": average}, wait=True)
    settings = json.loads((copy / "config.json").read_text())
    settings["optimizer"]["ema_decay"] = 0.5
    (copy / "config.json").write_text(json.dumps(settings))
    report = runs.ask("prune", **{"run-dir": copy, "out": tmp_path / "out", "target": 0, "calibration-tokens": 1})
    assert report["after"] == report["before"] and report["step"] == 21
    found = restore.load_params(tmp_path / "out" / "checkpoints", params)
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(average)))
    assert runs.config(tmp_path / "out").optimizer.ema_decay == 0


@pytest.mark.parametrize("words, hint", [
    (("--target", "1"), "[0, 1)"),
    (("--target", "-0.1"), "[0, 1)"),
    (("--target", "nan"), "[0, 1)"),
    (("--method", "luck"), "--method"),
    (("--pattern", "2of4"), "N:M"),
    (("--pattern", "4:4"), "between 0 and M"),
    (("--pattern", "2:4", "--target", "0.75"), "drop one of the two"),
    (("--calibration-tokens", "0"), "--calibration-tokens"),
])  # fmt: skip
def test_a_wrong_flag_is_one_line(words, hint, tmp_path):
    code, said = runs.call("prune", *words, **{"run-dir": tmp_path, "out": tmp_path / "out"})
    assert code == 78 and said.count("\n") == 1 and hint in said
    assert not (tmp_path / "out").exists()


def test_a_pattern_that_divides_nothing_leaves_nothing_behind(whole_run, tmp_path):
    code, said = runs.call("prune", **{"run-dir": whole_run, "out": tmp_path / "out", "pattern": "1:5"})
    assert code == 78 and "does not divide" in said.splitlines()[-1] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("heads, said", [({"labels/kernel": (32, 2)}, "prune its base"), ({}, "merge it first")])
def test_what_is_no_plain_model_is_told_what_to_do(heads, said):
    """`merge` refuses a head too, so nobody is sent there with one."""
    with pytest.raises(UserError, match=said):
        prune.check(SimpleNamespace(heads=heads, plain=False), "runs/tuned", "runs/tuned")


def test_no_run_and_no_out_are_one_line(tmp_path):
    for flags, hint in (({"out": tmp_path / "out"}, "--run-dir"), ({"run-dir": tmp_path}, "--out")):
        code, said = runs.call("prune", **flags)
        assert code == 78 and said.count("\n") == 1 and hint in said


def test_a_pruned_run_names_the_text_that_it_was_pruned_with(copy, tiny_store, tmp_path):
    """An imported run knows of none, and `evaluate` is the next command."""
    settings = json.loads((copy / "config.json").read_text())
    settings["data"]["store"] = "data/none"
    (copy / "config.json").write_text(json.dumps(settings))
    flags = {"run-dir": copy, "out": tmp_path / "out", "method": "magnitude", "calibration-tokens": 1}
    runs.ask("prune", **flags, **{"data.store": tiny_store})
    assert runs.config(tmp_path / "out").data.store == str(tiny_store)
