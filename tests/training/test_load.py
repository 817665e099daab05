"""A run directory as a model: its base, more pieces than the base has, mistakes in one line."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import AdversarialConfig, Config, MeshConfig, TuneConfig, replace, stored
from chinchilla_jax.disk import write_json
from chinchilla_jax.errors import UserError
from chinchilla_jax.training import load, mirror
from tests import runs

URL = "gs://bucket/runs/one"


def test_a_base_is_found_beside_a_run_that_was_moved_with_it(root):
    (root / "bucket/runs/base").mkdir(parents=True)
    (root / "bucket/runs/base/config.json").write_text("{}")
    with mirror.standing_for(URL) as standing:
        assert mirror.named(str(load.find_base("gone/base", standing.folder))) == "gs://bucket/runs/base"
        (standing.folder / "config.json").write_text("{}")
        with pytest.raises(UserError, match="the base gone/other of"):
            load.find_base("gone/other", standing.folder)


LORA = {"tune.method": "lora", "tune.rank": 4, "train.sample-every": 0, "train.eval-every": 10, "checkpoint.every": 10}


def test_a_method_without_a_base_is_one_line(tmp_path, tiny_store, whole_run):
    code, said = runs.pretrain(tmp_path, tiny_store, **{"tune.method": "lora"})
    assert code == 78 and "name it with --tune.base" in said
    code, said = runs.pretrain(tmp_path, tiny_store, **{"tune.base": whole_run})
    assert code == 78 and "say how with --tune.method" in said
    code, said = runs.pretrain(tmp_path, tiny_store, **LORA | {"tune.base": whole_run, "tune.targets": "w_q"})
    assert code == 78 and "matches no matrix" in said


def test_new_pieces_are_the_mean_of_the_others():
    table, head = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    params = {"embed": {"table": table}, "unembed": {"table": head}, "blocks": "as they are"}
    found = load.grown(params, 5)
    np.testing.assert_array_equal(found["embed"]["table"], [*table, [2, 3], [2, 3]])
    assert found["unembed"]["table"].shape == (5, 2) and found["blocks"] == "as they are"
    assert load.grown(params, 3) is params
    with pytest.raises(UserError, match=r"--model.vocab-size 2 is less than the 3 rows"):
        load.grown(params, 2)


def test_an_adapter_is_refused_without_its_base_and_on_another():
    told = {"base": {"run": "runs/base", "step": 20, "fingerprint": "ab"}}
    base = SimpleNamespace(facts={"run": "runs/other", "step": 7, "fingerprint": "cd"})
    load.check_base({}, None)
    load.check_base(told, SimpleNamespace(facts=told["base"] | {"run": "moved"}))
    with pytest.raises(UserError, match=r"holds an adapter of runs/base alone; name it with --tune.base"):
        load.check_base(told, None)
    with pytest.raises(UserError, match=r"runs/other at step 7 is not the base .*\(runs/base at step 20\)"):
        load.check_base(told, base)


@pytest.mark.parametrize("told", ["{}", '{"tune": {"method": "full", "base": "runs/base"}}'])
def test_a_whole_model_is_no_adapter(told, tmp_path):
    """What --adapter of serve and of generate names, before anything of it is loaded."""
    (tmp_path / "config.json").write_text(told)
    with pytest.raises(
        UserError, match=r"--adapter .*: that run is a whole model and no adapter; give it as --run-dir"
    ):
        load.adapter(Config(), str(tmp_path), None)


def test_what_is_loaded_has_the_shape_it_was_trained_in_and_keeps_nothing_of_attacks():
    own = replace(
        Config(), {"model.layers": 3, "train.steps": 700, "adversarial.method": "freelb", "optimizer.b1": 0.5}
    )
    asked = replace(Config(), {"train.seq_len": 64, "train.batch_ramp": ((2, 64),), "mesh.fsdp": 2, "model.layers": 9})
    found = load._as_trained(asked, own)
    assert (found.model, found.optimizer, found.adversarial) == (own.model, own.optimizer, AdversarialConfig())
    assert found.mesh == asked.mesh and found.train == dataclasses.replace(asked.train, steps=700, batch_ramp=())


@pytest.mark.parametrize("axes, devices", [((-1, 1, 1), 1), ((2, 2, 2), 4), ((1, -1, 1), 8), ((1, 2, -1), 8)])
def test_what_decodes_takes_the_devices_that_fsdp_and_tensor_ask_for(axes, devices):
    assert load._mesh(Config(mesh=MeshConfig(*axes)), whole=False).size == devices


def test_a_tuned_model_is_its_base_but_for_how_it_is_computed(tmp_path):
    base = replace(Config(), {"model.layers": 4, "model.dtype": "bfloat16", "model.tied": True, "model.vocab_size": 99})
    (tmp_path / "base").mkdir()
    write_json(tmp_path / "base/config.json", stored.to_json(base))
    asked = replace(Config(), {"model.layers": 9, "model.dropout": 0.1, "model.dtype": "float32"})

    def model(**tune):
        tuned = dataclasses.replace(asked, tune=TuneConfig(base=str(tmp_path / "base"), **tune))
        return load.tuned(tuned, tmp_path / "run").model

    found = model(method="lora")
    assert (found.layers, found.vocab_size, found.tied) == (4, 99, True)
    assert (found.dropout, found.dtype) == (0.1, "float32")
    cut = model(method="full", layers=2, untie=True)
    assert (cut.layers, cut.tied) == (2, False)
    with pytest.raises(UserError, match=r"--tune.layers 5: .*base has 4 layers"):
        model(method="full", layers=5)


def test_a_base_that_is_no_run_is_told_from_one_that_is_gone(tmp_path):
    with pytest.raises(UserError, match="nowhere holds no run to start from"):
        load.find_base("nowhere", tmp_path / "new")
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match=r"the base nowhere of .* is not there"):
        load.find_base("nowhere", tmp_path)


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="name the run with --run-dir"):
        load.run_folder(None)
    with pytest.raises(UserError, match=f"{tmp_path} holds no run; train one with pretrain --run-dir {tmp_path}"):
        load.run_folder(str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(
        UserError, match=f"is a token store and no run; train on it with pretrain --data.store {tmp_path}"
    ):
        load.run_folder(str(tmp_path))
