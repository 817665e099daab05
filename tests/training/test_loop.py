"""Whole runs of a tiny model: what they leave behind, what they pass over, what they refuse."""

import json
import os
import signal
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.training import integrity, loop, program, signals
from chinchilla_jax.training.goodput import goodput
from chinchilla_jax.training.rundir import lock
from tests import runs

# What a run leaves behind


def test_every_row_once_and_in_order(whole_run):
    found = runs.rows(whole_run)
    assert [row["step"] for row in found if "loss" in row] == list(range(1, 21))
    assert [row["step"] for row in found] == sorted(row["step"] for row in found)
    assert [row["step"] for row in found if "valid_loss" in row] == [8, 16, 20]
    assert [row["step"] for row in found if "sample" in row] == [8, 16, 20]
    assert all(row["tokens"] == 8 * 16 and row["skipped"] == 0 for row in found if "loss" in row)
    timing = runs.rows(whole_run, "timing")
    assert [row["step"] for row in timing] == list(range(1, 21)) and all(row["tokens_per_s"] > 0 for row in timing)


def test_events_tell_the_course(whole_run):
    """A step is saved before it is validated."""
    found = [(row["event"], row.get("step")) for row in runs.rows(whole_run, "events")]
    hooks = [("evaluated", n) for n in (8, 16, 20) for _ in range(2)]
    saves = [("saved", n) for n in (5, 10, 15, 20)]
    course = sorted(saves + hooks, key=lambda row: row[1])  # keeps the order of equal steps
    assert found == [("begin", None), ("compiled", None), ("start", 0), *course, ("end", 20)]
    shares = goodput(runs.rows(whole_run, "events"))["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3) and shares["lost"] == 0 < shares["evaluating"]


def test_the_run_directory_needs_nothing_else(whole_run, tiny_store):
    assert (whole_run / "tokenizer.model").read_bytes() == (tiny_store / "tokenizer.model").read_bytes()
    assert json.loads((whole_run / "config.json").read_text())["model"]["vocab_size"] > 256
    assert runs.saved(whole_run) == [5, 10, 15, 20]
    events = [path.stat().st_size for path in (whole_run / "tensorboard").glob("events.out.tfevents.*")]
    assert len(events) == 1 and events[0] > 20 * 4 * 10


def test_the_loss_falls(whole_run):
    found = runs.losses(whole_run)
    assert found[20] < found[1] - 0.3


def test_a_finished_run_says_so_and_stays_as_it_is(copy, tiny_store):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    code, said = runs.pretrain(copy, tiny_store)
    assert code == 0 and "has all of its 20 steps; nothing to do" in said
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    report = runs.ask("pretrain", **runs.SETTINGS, **{"data.store": tiny_store, "run-dir": copy})
    assert report["step"] == 20 and {"loss", "valid_loss", "sample"} <= report.keys()


# What fails beside training


@pytest.mark.parametrize("hangs", [(integrity, "write_manifest"), (Likelihood, "__call__")])
@pytest.mark.usefixtures("compiled_once")
def test_a_hang_beside_the_steps_is_noticed(hangs, tiny_store, tmp_path, monkeypatch, capfd):
    """A save on a file system that does not answer, and a first validation that never comes."""
    owner, name = hangs
    called, left, goes_on = getattr(owner, name), [], threading.Event()

    def hanging(*args, **how):
        goes_on.wait(60)
        return called(*args, **how)

    monkeypatch.setattr(owner, name, hanging)
    monkeypatch.setattr(signals.os, "_exit", lambda code: (left.append(code), goes_on.set()))
    monkeypatch.setattr(loop, "Watchdog", partial(signals.Watchdog, floor=2.0, longer=1.5))
    code, said = runs.pretrain(tmp_path, tiny_store, **{"checkpoint.every": 2, "train.eval-every": 4, **runs.SILENT})
    assert code == 0 and left[0] == 75
    said = capfd.readouterr().err
    assert "no progress for 3 s" in said and "in hanging" in said


# Numbers that are not finite


def poison(monkeypatch, is_bad) -> None:
    """Gradients that are not finite at the steps that `is_bad` names."""

    def poisoned(config, binding, make):
        objective = dense(config.model, config.objective)

        def gradients(params, batch, key, step, carry):
            grads, sums, carry = objective.gradients(params, batch, key, step, carry)
            return jax.tree.map(lambda g: jnp.where(is_bad(step), jnp.nan, g), grads), sums, carry

        return type(objective)(objective.init, gradients, objective.evaluate)

    monkeypatch.setattr(program.objectives, "build", poisoned)


def weights(run_dir: Path, step: int) -> dict:
    """Fingerprints of what a bad step must not change."""
    found = runs.leaves(run_dir, step)
    return {name: leaf for name, leaf in found.items() if name.startswith(("params/", "opt_state/"))}


def test_bad_steps_are_skipped_and_counted(tiny_store, tmp_path, monkeypatch):
    poison(monkeypatch, lambda step: (step == 6) | (step >= 10) & (step < 14))
    runs.trained(tmp_path, tiny_store, **{"checkpoint.every": 1, **runs.SILENT})
    assert [row["skipped"] for row in runs.rows(tmp_path) if "loss" in row] == [*[0] * 6, 1, 1, 1, 1, 2, 3, 4, *[5] * 7]
    assert [row["step"] for row in runs.rows(tmp_path, "events") if row["event"] == "skipped"] == [7, 11, 12, 13, 14]
    assert weights(tmp_path, 7) == weights(tmp_path, 6) != weights(tmp_path, 8)
    assert weights(tmp_path, 14) == weights(tmp_path, 10) != weights(tmp_path, 15)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(runs.state(tmp_path)))


def test_too_many_bad_steps_end_the_run_with_good_parameters(tiny_store, tmp_path, monkeypatch):
    """Between two checkpoints too: metrics are read one step late, so the sixth bad step has been made by then."""
    poison(monkeypatch, lambda step: step >= 4)
    code, said = runs.pretrain(tmp_path, tiny_store, **{"checkpoint.every": 4, "train.eval-every": 0, **runs.SILENT})
    assert code == 77 and "5 steps in a row" in said and said.count("error:") == 1
    assert "the parameters of step 4, saved as step 10, failed on every batch" in said and "another --run-dir" in said
    assert runs.saved(tmp_path) == [4, 8, 10]
    assert weights(tmp_path, 4) == weights(tmp_path, 8) == weights(tmp_path, 10)
    assert [row["event"] for row in runs.rows(tmp_path, "events")][-2:] == ["saved", "diverged"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(runs.state(tmp_path)))


# The same run, or another one


def test_parameters_that_came_out_of_bad_steps_are_not_called_ruined():
    """A step is dispatched before the metrics of the last one are read: it may be good again."""
    run = SimpleNamespace(done=8, bad=5, checkpoints=SimpleNamespace(steps=lambda: [2], folder="f"))
    assert "step 8, which is saved, is finite again" in loop.Run.damage(run, 0)
    assert "the parameters of step 2, saved as step 8, failed on every batch" in loop.Run.damage(run, 6)


def test_a_second_job_is_refused(copy, tiny_store):
    with lock(copy):
        code, said = runs.pretrain(copy, tiny_store)
    assert code == 78 and said.count("\n") == 1 and f"in use by process {os.getpid()}" in said


# Batches that grow, an average


RAMP = {"train.batch-ramp": "((6, 16),)", **runs.SILENT}


@pytest.mark.usefixtures("compiled_once")
def test_a_ramp_resumes_inside_itself(tiny_store, tmp_path, monkeypatch):
    whole = runs.trained(tmp_path / "whole", tiny_store, **RAMP)
    assert [row["tokens"] for row in runs.rows(whole) if "loss" in row] == [8 * 16] * 6 + [16 * 16] * 14
    with monkeypatch.context() as patch:
        runs.signal_when(
            patch, loop.Run, "log", lambda run, pending, waited: pending and pending[0] == 7, signal.SIGTERM
        )
        assert runs.pretrain(tmp_path / "cut", tiny_store, **RAMP)[0] == 75
    runs.trained(tmp_path / "cut", tiny_store, **RAMP)
    runs.assert_same_run(tmp_path / "cut", whole)
    compiled = [row["rows"] for row in runs.rows(tmp_path / "cut", "events") if row["event"] == "compiled"]
    assert compiled == [8, 16, 16], "what is over is not compiled again"


@pytest.mark.usefixtures("compiled_once")
def test_evaluate_uses_the_average_of_the_parameters(tiny_store, tmp_path):
    short = {"train.steps": 4, "checkpoint.every": 1, "train.eval-batches": 0, "optimizer.ema-decay": 0.75}
    short |= runs.SILENT
    runs.trained(tmp_path, tiny_store, **short)
    raw = [runs.state(tmp_path, step).params for step in range(1, 5)]
    [average] = {id(s): s for s in runs.state(tmp_path).opt_state if hasattr(s, "average")}.values()
    first = program.Program(runs.config(tmp_path)).initial().params
    expected = jax.tree.map(np.asarray, first)
    for params in raw:
        expected = jax.tree.map(lambda mean, new: 0.75 * mean + 0.25 * new, expected, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), average.average, expected)
    found = runs.ask("evaluate", **{"run-dir": tmp_path})["loss_nats_per_token"]
    assert found == pytest.approx(runs.naive_loss(tmp_path, tiny_store, average.average)[0], rel=1e-5)
    assert abs(found - runs.naive_loss(tmp_path, tiny_store, raw[-1])[0]) > 1e-3
    assert runs.rows(tmp_path)[-1]["valid_loss"] == pytest.approx(found, rel=1e-6)


# The profiler


@pytest.mark.parametrize("start", [2, 18], ids=["inside", "beyond the end"])
@pytest.mark.usefixtures("compiled_once")
def test_the_profiler_writes_its_window(tiny_store, tmp_path, whole_run, start):
    runs.trained(tmp_path, tiny_store, **{"train.profile-start": start, "train.profile-steps": 3})
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1
    assert "profiled" in [row["event"] for row in runs.rows(tmp_path, "events")]
    runs.assert_same_run(tmp_path, whole_run)
