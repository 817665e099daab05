"""What a run reports: rows that are JSON whatever the figures; Weights & Biases, by a module of ours in its place."""

import json
import math
import shutil
import sys
import types

import pytest

from chinchilla_jax.training import metrics
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


SKIPPED = {"step": 3, "loss": math.nan, "grad_norm": math.inf, "bits_per_byte": math.nan, "lr": 1e-3, "skipped": 1}


def rows(tmp_path, *found) -> None:
    for row in found:
        metrics.append(tmp_path / "metrics.jsonl", row)


def test_rows_hold_null_where_a_figure_is_not_finite(tmp_path):
    rows(tmp_path, SKIPPED)
    text = (tmp_path / "metrics.jsonl").read_text()
    [row] = metrics.read(tmp_path / "metrics.jsonl")
    assert json.loads(text, parse_constant=pytest.fail) == row
    assert row == SKIPPED | {"loss": None, "grad_norm": None, "bits_per_byte": None}
    timing = {"tokens_per_s": 1e3, "data_wait": 0.0, "seconds_left": 1.0}
    assert "loss" not in metrics.live_line(row, timing, 10) and "skipped 1" in metrics.live_line(row, timing, 10)
    assert "loss nan" in metrics.live_line(SKIPPED, timing, 10)


def test_rows_of_before_are_read_alike(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "lo')
    assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None}]
