"""Where a run starts, and what a change of settings does to the place in its text."""

import ast
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from chinchilla_jax.config import Config, TrainConfig, to_dict
from chinchilla_jax.training import origin, start
from chinchilla_jax.training.load import load
from tests import runs
from tests.interop import folders, ggufs

pytestmark = pytest.mark.usefixtures("compiled_once")
TRAIN = TrainConfig(batch_size=4, steps=400)


def said(**changes) -> str:
    """What is said of a change at step 20."""
    old, new = (to_dict(Config(train=train)) for train in (TRAIN, dataclasses.replace(TRAIN, **changes)))
    return start.moved_in_text(old, new, 20)


@pytest.mark.parametrize(
    "batch, what", [(8, "80 windows of text are skipped"), (2, "40 windows of text are read again"), (4, "")]
)
def test_a_changed_batch_moves_the_place_and_the_advice_does_not(batch, what):
    found = said(batch_size=batch)
    assert found.startswith(what) and ("--train.batch-ramp" in found) == bool(what)
    if what:
        words = found.split("give --train.batch-size ")[1].split()
        advised = {"batch_size": int(words[0]), "batch_ramp": ast.literal_eval(words[2].strip("'"))}
        if len(words) > 3:
            assert words[3] == "--train.microbatches"
            advised["microbatches"] = int(words[4])
        assert advised["batch_size"] == 4 and advised["batch_ramp"] == ((20, batch),) and said(**advised) == ""


def test_what_does_not_move_the_place_is_not_spoken_of():
    assert said(steps=900, batch_ramp=((20, 8), (30, 16)), log_every=3) == ""


@pytest.mark.parametrize("change", [{"seed": 1}, {"seq_len": 128}])
def test_another_order_of_windows(change):
    assert "another order" in said(**change)


def test_a_run_goes_on_with_a_warning(copy, tiny_store):
    code, said = runs.pretrain(
        copy, tiny_store, "--allow-changes", **{"train.batch-size": 16, "train.steps": 21, **runs.SILENT}
    )
    assert code == 0 and "warning: 160 windows of text are skipped" in said


# `pretrain --from`: another run's parameters, own data and schedule, and where they came from


STILL = {"optimizer.peak-lr": 1e-12, "train.steps": 2, "optimizer.warmup-steps": 1, **runs.SILENT}


def params(run_dir):
    """The parameters of a run's newest checkpoint."""
    return load(runs.config(run_dir), str(run_dir)).params


def test_a_run_of_ours_goes_on_with_its_parameters(copy, tiny_store, tmp_path):
    more = runs.trained(tmp_path / "more", tiny_store, **{"from": copy, **STILL})
    for new, old in zip(jax.tree.leaves(params(more)), jax.tree.leaves(params(copy))):
        np.testing.assert_allclose(new, old, atol=1e-9)
    [started] = [row for row in runs.rows(more, "events") if row["event"] == "from"]
    assert (started["run"], started["step"]) == (str(copy), 20) and runs.config(more).tune.base == str(copy)
    assert runs.config(more).model == runs.config(copy).model and runs.saved(more) == [2]
    found = origin.read(more)
    assert (found["source"], found["format"], found["step"]) == (str(copy), "run", 20)
    assert found["fingerprint"] == started["fingerprint"]
    shutil.rmtree(copy)  # a run that has begun is whole without it
    code, said = runs.pretrain(more, tiny_store, **{"from": copy, **STILL})
    assert code == 0 and "nothing to do" in said
    assert runs.ask("evaluate", **{"run-dir": more})["step"] == 2


def test_mistakes_of_from_are_one_line(whole_run, tiny_store, tmp_path):
    other = runs.prepare(tmp_path / "other", seed=5)
    for flags, store, message in (
        ({"from": whole_run}, other, "made with another tokenizer"),
        ({"from": tmp_path / "none"}, tiny_store, "holds no run to start from"),
        ({"from": whole_run, "minutes": 3}, tiny_store, "--minutes plans one"),
        ({"from": whole_run, "tune.base": "x", "tune.method": "full"}, tiny_store, "two runs"),
    ):
        code, said = runs.pretrain(tmp_path / "new", store, **flags)
        assert code == 78 and message in said and not (tmp_path / "new" / "checkpoints").exists(), said


@pytest.mark.slow
def test_an_imported_model_is_prepared_for_trained_and_reported(tmp_path):
    """On all devices, two of them holding a shard each."""
    told = ggufs.settings("llama")
    ggufs.write(tmp_path / "m.gguf", "llama", told, folders.tensors(told), "Q8_0")
    code, said = runs.call("import", str(tmp_path / "m.gguf"), **{"run-dir": tmp_path / "base"})
    assert code == 0, said
    runs.write_text(tmp_path / "text")
    flags = {"data.sources": tmp_path / "text", "data.store": tmp_path / "store", "data.valid-fraction": 0.15}
    code, said = runs.call("prepare", **flags, **{"data.tokenizer": tmp_path / "base"})
    assert code == 0, said
    settings = {"from": tmp_path / "base", "mesh.fsdp": 2, "train.steps": 20, "train.eval-every": 0}
    settings |= runs.SILENT
    more = runs.trained(tmp_path / "more", tmp_path / "store", **settings)
    losses = runs.losses(more)
    assert losses[20] < losses[1]
    assert json.loads((more / "config.json").read_text())["model"]["d_model"] == 32
    assert (more / "tokenizer.json").read_bytes() == (tmp_path / "base/tokenizer.json").read_bytes()
    found = origin.read(more)
    assert found["license"] == "mit" and found["from"]["format"] == "gguf" and found["step"] == 0
    for run, name in ((more, "base"), (tmp_path / "base", "m.gguf")):
        told = runs.ask("report", **{"run-dir": run})
        assert name in told["came_from"][0] and "license mit" in told["came_from"][0]
        assert "sha256" in (run / "report.md").read_text()
