"""Flags of the export command, and what it hands on."""

from types import SimpleNamespace

import pytest

from chinchilla_jax.commands import export, hints
from chinchilla_jax.interop import exported
from tests import runs


@pytest.fixture
def run(tmp_path):
    """A folder that looks like a run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    return tmp_path / "run"


@pytest.fixture
def asked(monkeypatch):
    """What the command hands on; nothing is written."""
    seen = SimpleNamespace()

    def note(config, run_dir, out, how, say):
        seen.run_dir, seen.out, seen.how = run_dir, out, how
        return {"step": 7}

    monkeypatch.setattr(exported, "export", note)
    return seen


def test_flags_are_handed_on(asked, run, tmp_path):
    flags = {"format": "gguf", "dtype": "q8_0", "out": tmp_path / "m.gguf"}
    found = runs.ask("export", "--merge", **{"run-dir": run}, **flags)
    assert asked.how == exported.How("gguf", "q8_0", 5_000_000_000, True) and asked.out == tmp_path / "m.gguf"
    assert asked.run_dir == run and found == {
        "step": 7, "wrote": [str(tmp_path / "m.gguf")],
        "next": hints.line("import", f"{tmp_path}/m.gguf", "--run-dir", f"{tmp_path}/m.gguf-again"),
    }  # fmt: skip


@pytest.mark.parametrize("form", export.FORMATS)
def test_the_next_command_is_one_that_works(asked, run, form, tiny_store, tmp_path):
    """The base of an adapter is named, and text is asked for only where there is some."""
    (run / "config.json").write_text('{"tune": {"base": "runs/base", "method": "lora"}}')
    out, flags = str(tmp_path / "x"), {"run-dir": run, "format": form, "out": tmp_path / "x"}
    base = ["--base", "runs/base"] * (form == "peft")
    back = hints.line("import", out, "--run-dir", f"{out}-again", *base)
    text = hints.line("generate", "--run-dir", out, "--prompt", "Once upon a time")
    assert runs.ask("export", **flags)["next"] == (text if form in export.RUNS else back)
    measured = hints.line("evaluate", "--run-dir", out, "--data.store", str(tiny_store))
    found = runs.ask("export", **flags, **{"data.store": tiny_store})["next"]
    assert found == (measured if form in export.RUNS else back)
    assert set(export.FORMATS) == set(exported.FORMATS) and set(export.RUNS) == set(exported.OWN)


@pytest.mark.parametrize("flags, message", [
    ({}, "name what to write with --out"), ({"out": "new", "shard-size": 0}, "--shard-size 0.0 must be above 0"),
    ({"out": "new", "shard-size": "inf"}, "--shard-size inf must be above 0 and finite"),
    ({"out": "new", "shard-size": 1, "format": "gguf"}, "--format gguf has no shards; omit --shard-size"),
    ({"out": "."}, "--out . is there already"), ({"out": "new", "format": "onnx"}, "invalid choice: 'onnx'"),
    ({"out": "gs://bucket/x"}, "this has to be a local path"), ({"out": "new", "run-dir": "none"}, "none"),
])  # fmt: skip
def test_mistakes_are_one_line(asked, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = runs.call("export", **{"run-dir": ".", **flags})
    assert code == 78 and said.startswith("error: ") and said.count("\n") == 1 and message in said, said
    assert list(tmp_path.iterdir()) == [] and not vars(asked)
