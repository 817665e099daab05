"""Flags of the import command, and what it says before anything is written."""

import shutil

import pytest

from chinchilla_jax.interop import imported
from tests import runs


@pytest.fixture
def adapter(tmp_path):
    """A folder that looks like an adapter of peft's."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    return tmp_path / "adapter"


def test_an_adapter_is_imported_beside_its_base(adapter, tmp_path, monkeypatch):
    seen = []

    def note(*told):
        seen.extend(told[:3])
        told[1].mkdir()
        (told[1] / "config.json").write_text("{}")
        return {"architecture": "LORA"}

    monkeypatch.setattr(imported, "write_adapter", note)
    found = runs.ask("import", str(adapter), **{"run-dir": tmp_path / "run", "base": tmp_path / "base"})
    assert seen == [adapter, tmp_path / "run", str(tmp_path / "base")] and found["origin"] == {"architecture": "LORA"}
    assert found["wrote"] == [str(tmp_path / "run")] and f"generate --run-dir {tmp_path / 'run'}" in found["next"]


@pytest.mark.parametrize("kept", ["tokenizer.model", "tokenizer.json", "sparse.safetensors"])
def test_a_run_directory_is_none_to_import(kept, whole_run, tmp_path):
    """Whatever made it: a run that was imported has a tokenizer.json, one that was packed has no checkpoints."""
    own = tmp_path / "own"
    own.mkdir()
    shutil.copyfile(whole_run / "config.json", own / "config.json")
    (own / kept).touch()
    code, said = runs.call("import", str(own), **{"run-dir": tmp_path / "run"})
    assert code == 78 and "is a run directory, which every command takes as it is" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words, flags, message", [
    (("adapter",), {}, "adapter holds an adapter; name the run of its base model with --base"),
    (("other",), {"base": "x"}, "--base belongs to an adapter, and other holds none"),
    (("none",), {}, "none: no such file or folder"), (("adapter",), {"run-dir": "adapter"}, "is there already"),
    ((), {}, "the following arguments are required: PATH"), (("gs://bucket/m",), {}, "PATH gs://bucket/m: this has"),
])  # fmt: skip
def test_mistakes_are_one_line(adapter, words, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = runs.call("import", *words, **{"run-dir": "run", **flags})
    assert code == 78 and said.startswith("error: ") and said.count("\n") == 1 and message in said, said
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
