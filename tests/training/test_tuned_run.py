"""Runs that tune a trained one: what their checkpoints hold, resuming, another base, merging, generating."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from chinchilla_jax.commands import serve
from chinchilla_jax.config import Config
from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import merging
from chinchilla_jax.optim.allocate import allocation
from chinchilla_jax.training.load import load
from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")
LORA = {"tune.method": "lora", "tune.rank": 4, "train.eval-every": 10, "checkpoint.every": 10, **runs.SILENT}
ADALORA = LORA | {"tune.method": "adalora", "tune.every": 2}
METHODS = {
    "lora": LORA,
    "adalora": ADALORA,
    "freelb": LORA | {"adversarial.method": "freelb", "adversarial.start": 0.0, "adversarial.fraction": 0.5},
}


@pytest.fixture(scope="module")
def tuned(whole_run, tiny_store, tmp_path_factory):
    """A LoRA run on the whole run."""
    with runs.compiled_once():
        return runs.trained(tmp_path_factory.mktemp("tuned") / "lora", tiny_store, **LORA | {"tune.base": whole_run})


def manifest(run_dir, step: int = 20) -> dict:
    return json.loads((run_dir / "checkpoints" / str(step) / "manifest.json").read_text())


def test_a_checkpoint_holds_what_trains_and_names_its_base(tuned, whole_run):
    """Optimizer bytes are 8 a trained parameter; the base is absent, its fingerprint is not."""
    found = manifest(tuned)
    sizes = {name: int(np.prod(leaf["shape"])) * 4 for name, leaf in found["leaves"].items()}
    trained = sum(size for name, size in sizes.items() if name.startswith("params/")) // 4
    optimizer = sum(size for name, size in sizes.items() if name.startswith("opt_state/"))
    assert 0 < trained < 12_000 and 8 * trained <= optimizer <= 8 * trained + 64
    assert all(name.startswith(("params/adapters/", "opt_state/")) or "/" not in name for name in sizes)
    assert sum(file["size"] for file in found["files"]) <= 12 * trained + 256 * 1024
    base = found["meta"]["base"]
    assert base["step"] == 20 and base["run"] == str(whole_run) and len(base["fingerprint"]) == 64
    before = manifest(tuned, 10)["leaves"]
    assert all(leaf != before[name] for name, leaf in found["leaves"].items() if "/adapters/" in name), (
        "all of it moves"
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, whole_run, tiny_store, tuned, method):
    settings = METHODS[method] | {"tune.base": whole_run}
    whole = tuned if method == "lora" else runs.trained(tmp_path / "whole", tiny_store, **settings)
    again = shutil.copytree(whole, tmp_path / "again")
    runs.forget(again, 10)
    runs.trained(again, tiny_store, **settings)
    runs.assert_same_run(again, whole)
    if method == "adalora":
        rows = [row for row in runs.rows(whole) if "triplets" in row]
        assert rows[-1]["triplets"] == rows[-1]["budget"] == 7 * 4 and len(rows) == 2
        state = runs.state(whole)
        assert sum(int(alive.sum()) for alive in allocation(state.opt_state).alive.values()) == 7 * 4


def test_another_base_is_refused(tuned, whole_run, tiny_store, tmp_path):
    """In one line, by whoever loads the adapter; a base that is gone as well; moved together they are found."""
    moved = shutil.copytree(tuned, tmp_path / "there" / "lora")
    config = json.loads((moved / "config.json").read_text())
    config["tune"]["base"] = "elsewhere/base"
    (moved / "config.json").write_text(json.dumps(config))
    code, said = runs.call("generate", **{"run-dir": moved})
    assert code == 78 and "is not there; put that run back" in said
    base = shutil.copytree(whole_run, tmp_path / "there" / "base")
    code, said = runs.call("generate", **{"run-dir": moved, "max-new-tokens": 2})
    assert code == 0, said
    runs.forget(base, 15)  # another step's parameters
    (base / "checkpoints" / "15").rename(base / "checkpoints" / "20")
    shutil.rmtree(base)
    shutil.copytree(runs.trained(tmp_path / "other", tiny_store, **{"train.seed": 3, **runs.SILENT}), base)
    code, said = runs.call("generate", **{"run-dir": moved})
    assert code == 78 and "is not the base that the adapter was trained on" in said and said.count("\n") == 1


def test_merging_and_several_adapters(tuned, whole_run, tmp_path):
    """The merged run has the adapter's logits; one base serves several adapters with the programs of the first."""
    out = tmp_path / "merged"
    report = runs.ask("merge", **{"run-dir": tuned, "out": out})
    assert report["largest_difference"] < 1e-5 * report["largest_logit"]
    assert "tune" in json.loads((out / "config.json").read_text())
    origin = json.loads((out / "origin.json").read_text())
    assert origin["source"] == str(tuned) and origin["from"]["source"] == str(whole_run)
    assert runs.config(out).tune.method == "off" and not (set(manifest(out)["meta"]) & {"base"})
    whole, adapter = (load(Config(), str(folder), whole_mesh=False) for folder in (out, tuned))
    cfg = whole.program.config.model
    np.testing.assert_allclose(merging._logits(whole.params, cfg), merging._logits(adapter.params, cfg), atol=1e-5)
    greedy = {"temperature": 0, "max-new-tokens": 5, "prompt": "the sea"}
    alone = runs.ask("generate", **{"run-dir": out, **greedy})["completions"]
    one = runs.ask("generate", **{"run-dir": whole_run, "adapter": tuned, **greedy})["completions"]
    assert one == [{**alone[0], "adapter": str(tuned)}]
    code, said = runs.call("prune", **{"run-dir": tuned, "out": tmp_path / "pruned", "data.store": "none"})
    assert code == 78, said


def test_serve_takes_an_adapter_as_a_model(tuned, whole_run):
    """Beside its base, with the arrays that it leaves as they are in common; a name that is taken is refused."""
    flags = {"name": "base", "capacity": 64, "weights": "float", "slots": 2, "queue": 4, "prefix_cache": 0, "lookup": 0}
    args = SimpleNamespace(run_dir=str(whole_run), adapter=[str(tuned)], **flags)
    service = serve._service(runs.config(whole_run), args, None)
    assert [model.name for model in service.models] == ["base", tuned.name]
    base, other = service.scheduler.models.values()
    assert other["embed"]["table"].w_PD is base["embed"]["table"].w_PD
    query = [weights["blocks"][0]["attention"]["query"]["kernel"].whole.w_PD for weights in (base, other)]
    assert jax.tree.structure(base) == jax.tree.structure(other) and (query[0] != query[1]).any()
    args.name = tuned.name
    with pytest.raises(UserError, match="--name"):
        serve._service(runs.config(whole_run), args, None)


def test_a_tuned_run_is_the_same_on_eight_devices(tuned, whole_run, tiny_store, tmp_path):
    """The tiny run of the tests is on eight devices by data; here the parameters are split as well."""
    settings = LORA | {"tune.base": whole_run, "mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
    split = runs.trained(tmp_path / "split", tiny_store, **settings)
    found, expected = runs.losses(split), runs.losses(tuned)
    np.testing.assert_allclose([found[n] for n in expected], list(expected.values()), rtol=1e-4)
