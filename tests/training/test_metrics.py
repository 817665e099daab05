"""What a run reports to others: Weights & Biases, by a module of ours in its place."""

import shutil
import sys
import types

import pytest

from chinchilla_jax.training.metrics import Writer


@pytest.fixture
def board(monkeypatch):
    """A `wandb` that keeps what it is told: (what, facts) in order."""
    told = []
    run = types.SimpleNamespace(
        log=lambda row, step: told.append(("log", {"step": step, **row})), finish=lambda: told.append(("finish", {}))
    )
    fake = types.ModuleType("wandb")
    fake.init = lambda **how: told.append(("init", how)) or run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return told


def attempt(run_dir, resumed: int) -> None:
    writer = Writer(run_dir, resumed, wandb="project", config={"train": {"steps": 7}})
    writer.metrics({"step": resumed + 1, "loss": 2.5, "sample": "words", "bad": float("nan")})
    writer.close()


def test_a_run_of_wandb_is_gone_on_with_wherever_its_folder_is(tmp_path, board):
    (tmp_path / "a").mkdir()
    attempt(tmp_path / "a", 0)
    shutil.move(tmp_path / "a", tmp_path / "moved")
    attempt(tmp_path / "moved", 1)
    (tmp_path / "a").mkdir()  # another run of the same name
    attempt(tmp_path / "a", 0)
    assert [what for what, _ in board] == ["init", "log", "finish"] * 3
    first, again, other = (how for what, how in board if what == "init")
    assert first["id"] == again["id"] != other["id"] and again["resume"] == "allow"
    assert first["project"] == "project" and first["config"] == {"train": {"steps": 7}}
    assert [row for what, row in board if what == "log"][1] == {"step": 2, "loss": 2.5}
