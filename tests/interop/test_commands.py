"""An imported run is a run: every command takes it, on 8 devices too, and a mesh changes nothing of what is read."""

import pytest

from tests import runs
from tests.interop import folders
from tests.interop.test_exported import exported

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An imported Llama and a store of its own tokens: the folder of both."""
    place = tmp_path_factory.mktemp("commands")
    folders.folder(place / "theirs", "LlamaForCausalLM", **SHAPE)
    assert runs.call("import", str(place / "theirs"), **{"run-dir": place / "run"})[0] == 0
    runs.write_text(place / "text")
    flags = {"data.sources": place / "text", "data.store": place / "store", "data.tokenizer": place / "run"}
    code, said = runs.call("prepare", **flags, **{"data.valid-fraction": 0.15})
    assert code == 0, said
    return place


@pytest.mark.parametrize("mesh", [{"mesh.fsdp": 4}, {"mesh.fsdp": 2, "mesh.tensor": 2}])
def test_born_sharded(mesh, run, tmp_path):
    code, said = runs.call("import", str(run / "theirs"), **{"run-dir": tmp_path / "run", **mesh})
    assert code == 0, said
    assert runs.leaves(tmp_path / "run", 0) == runs.leaves(run / "run", 0)


def test_evaluate_and_attack(run):
    flags = {"run-dir": run / "run", "data.store": run / "store", "train.seq-len": 32, "train.batch-size": 8}
    attack = {"attack": None, "attack-tokens": 512, "radii": 0.1, "typo-rates": 0.05, "restarts": 1}
    found = runs.ask("evaluate", **flags, **attack)
    assert found["step"] == 0 and found["bits_per_byte"] > 0
    assert found["attack"]["step"] == 0


def test_generate(run):
    found = runs.ask("generate", **{"run-dir": run / "run", "prompt": "the sea", "max-new-tokens": 4, "samples": 2})
    assert len(found["completions"]) == 2


def test_prune_and_export(run, tmp_path):
    """A pruned import remembers nothing of being one but its numbers, and leaves as its architecture does."""
    flags = {"run-dir": run / "run", "data.store": run / "store", "train.seq-len": 32, "train.batch-size": 8}
    pruned = {"out": tmp_path / "pruned", "method": "magnitude", "target": 0.5, "calibration-tokens": 256}
    code, said = runs.call("prune", **flags, **pruned)
    assert code == 0, said
    exported(tmp_path / "pruned", tmp_path / "out")
    code, said = runs.call("report", **{"run-dir": run / "run", "out": tmp_path / "page"})
    assert code == 0 and "LlamaForCausalLM" in (tmp_path / "page" / "report.md").read_text()
