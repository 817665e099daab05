"""What a run reports: rows that are JSON whatever the figures; Weights & Biases, by a module of ours in its place."""

import io
import json
import math
import shutil
import sys
import types

import pytest

from chinchilla_jax.errors import UserError
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


def test_a_refusal_of_wandb_is_one_line(tmp_path, board, monkeypatch):
    class Refusal(Exception):
        pass

    def init(**how):
        raise Refusal("api_key not configured (no-tty)")

    fake = sys.modules["wandb"]
    fake.errors = types.SimpleNamespace(Error=Refusal)
    monkeypatch.setattr(fake, "init", init)
    with pytest.raises(UserError, match=r"--train.wandb project: .*no-tty.*; `wandb login` first"):
        Writer(tmp_path, 0, wandb="project")


def test_the_live_line_stays_on_one_row(monkeypatch):
    """Of a line that wraps, the terminal would rewrite the last row alone."""
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", "40")
    metrics.Terminal().show("step 1/10 | eta 0:00:01 | " + "x" * 100)
    assert shown.getvalue() == "\r\x1b[K" + "step 1/10 | eta 0:00:01 | ".ljust(39, "x")


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


def test_every_row_of_figures_has_a_step_and_no_row_of_other_files_needs_one(tmp_path):
    for name in ("metrics.jsonl", "timing.jsonl", "predictions.jsonl"):
        (tmp_path / name).write_text('{"step": 1, "loss": 2.0}\n{"loss": 1.5}\n')
    for name in ("metrics.jsonl", "timing.jsonl"):
        for use in (metrics.read, lambda path: metrics.take_back(path, 1)):
            with pytest.raises(UserError, match=rf"{name}:2: a row without the number of its step; remove this line"):
                use(tmp_path / name)
    assert metrics.read(tmp_path / "predictions.jsonl") == [{"step": 1, "loss": 2.0}, {"loss": 1.5}]
    (tmp_path / "predictions.jsonl").write_text("[5]\n")
    with pytest.raises(UserError, match=r"predictions\.jsonl:1: no row of named figures"):
        metrics.read(tmp_path / "predictions.jsonl")
