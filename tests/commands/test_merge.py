"""The merge command: its report, and what is refused before anything is loaded."""

from types import SimpleNamespace

import pytest

from chinchilla_jax.evaluation import merging
from chinchilla_jax.training import load
from tests import runs


@pytest.fixture
def run(tmp_path):
    """A folder that looks like an adapter run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text('{"tune": {"method": "lora", "base": "runs/base"}}')
    return tmp_path / "run"


def test_what_merging_changed_is_reported(run, tmp_path, monkeypatch):
    wrote = []
    loaded = SimpleNamespace(step=7, notes=["the base has moved"])
    monkeypatch.setattr(load, "load", lambda config, run_dir, whole_mesh: loaded)
    found = {"largest_logit": 8.0, "largest_difference": 3e-6, "filled_zeros": 1200}
    monkeypatch.setattr(merging, "whole", lambda given: ("params", found))
    monkeypatch.setattr(merging, "write", lambda *told: wrote.append(told))
    code, said = runs.call("merge", **{"run-dir": run, "out": tmp_path / "merged"})
    assert code == 0 and "warning: the base has moved" in said
    assert "merged at step 7: logits of 4 probe rows differ by at most 3e-06 (the largest is 8)" in said
    assert "warning: merging filled 1,200 zeros of the sparse base; keep the adapter" in said
    assert wrote == [(tmp_path / "merged", run, loaded, "params")] and f"wrote {tmp_path / 'merged'}" in said
    assert f"generate --run-dir {tmp_path / 'merged'}" in said.splitlines()[-1]


@pytest.mark.parametrize("told", ["{}", '{"tune": {"method": "full", "base": "runs/base"}}'])
def test_a_whole_model_has_nothing_to_merge(told, run, tmp_path):
    (run / "config.json").write_text(told)
    code, said = runs.call("merge", **{"run-dir": run, "out": tmp_path / "merged"})
    assert code == 78 and said == (
        f"error: {run} is a whole model and has nothing to merge; copy the folder, or export it in another format\n"
    )
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("flags, message", [
    ({}, "name what to write with --out"), ({"out": "."}, "nothing is overwritten"), ({"out": "new"}, "none"),
])  # fmt: skip
def test_mistakes_are_one_line(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = runs.call("merge", **{"run-dir": "none", **flags})
    assert code == 78 and said.startswith("error: ") and said.count("\n") == 1 and message in said, said
    assert list(tmp_path.iterdir()) == []
