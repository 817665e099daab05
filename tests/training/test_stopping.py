"""Runs that are killed, or asked to stop in whatever they do: in the end the same bits as of a run that was not."""

import random
import signal
import time

import pytest

from chinchilla_jax.data.batches import Batches
from chinchilla_jax.evaluation import likelihood
from chinchilla_jax.inference.text import Completer
from chinchilla_jax.training import loop, program
from chinchilla_jax.training.checkpoint import Checkpoints
from tests import runs

# Killed, and the same in the end


def test_kill_9_and_resume_equal_a_run_without(whole_run, tiny_store, tmp_path):
    killed = runs.start_pretrain(tmp_path / "run", tiny_store, devices=8, wrap=runs.KILL)
    runs.finish(killed, -signal.SIGKILL)
    assert max(runs.losses(tmp_path / "run")) == 13 and runs.saved(tmp_path / "run") == [5, 10]
    said = runs.finish(runs.start_pretrain(tmp_path / "run", tiny_store, devices=8))
    assert "resumed from step 10, verified\n" in said
    runs.assert_same_run(tmp_path / "run", whole_run)
    assert runs.leaves(tmp_path / "run", 15) == runs.leaves(whole_run, 15)


LONG = {"train.steps": 600, "checkpoint.every": 20, "checkpoint.keep": 2, "train.eval-every": 150}
LONG |= runs.SILENT


def lines(path) -> int:
    """How many lines a file has by now."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_at_random_moments(tiny_store, tmp_path):
    """Moments in the progress of the run and a little later, and two of them in its beginning."""
    draw, run = random.Random(1), tmp_path / "killed"
    slow = 500  # seconds for 600 steps on a crowded machine
    runs.finish(runs.start_pretrain(tmp_path / "whole", tiny_store, **LONG), seconds=slow)
    for number in range(10):
        before = lines(run / "timing.jsonl")
        process = runs.start_pretrain(run, tiny_store, **LONG)
        wanted = draw.randint(1, 55) if number % 5 else 0
        while wanted and process.poll() is None:  # rows after the checkpoint are taken back before new ones come
            found = lines(run / "timing.jsonl")
            before = min(found, before)
            if found >= before + wanted:
                break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1) if wanted else draw.uniform(0, 1.5))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    runs.finish(runs.start_pretrain(run, tiny_store, **LONG), seconds=slow)
    runs.assert_same_run(run, tmp_path / "whole", 600)
    assert list(runs.losses(run)) == list(range(1, 601))


# Asked to stop


def always(*args, **kwargs) -> bool:
    return True


def last_validation():
    calls = iter(range(100))
    return lambda *args, **kwargs: next(calls) == 2


# phase: what is called in it, with which arguments, and the last step that is completed then
PHASES = {
    "compile": (program.Program, "step", lambda: always, 1),
    "train": (loop.Run, "log", lambda: lambda run, pending, waited: pending and pending[0] == 6, 8),
    "data": (Batches, "at", lambda: lambda batches, step, rows: step == 11, None),
    "save": (Checkpoints, "save", lambda: lambda checkpoints, step, state, **kwargs: step == 10, 11),
    "validation": (likelihood.Likelihood, "__call__", lambda: always, 8),
    "sampling": (Completer, "stream", lambda: always, 8),
    "last validation": (likelihood.Likelihood, "__call__", last_validation, 20),
}
BOTH = ("compile", "train", "validation", "sampling")


@pytest.mark.parametrize(
    "phase, number",
    [*((phase, signal.SIGTERM) for phase in PHASES), *((phase, signal.SIGINT) for phase in BOTH)],
)
@pytest.mark.usefixtures("compiled_once")
def test_a_signal_saves_the_last_completed_step(phase, number, whole_run, tiny_store, tmp_path, monkeypatch):
    owner, name, due, step = PHASES[phase]
    with monkeypatch.context() as patch:
        runs.signal_when(patch, owner, name, due(), number)
        code, said = runs.pretrain(tmp_path, tiny_store)
    stopped = runs.rows(tmp_path, "events")[-1]
    assert code == 75 and f"stopped by {stopped['signal']} after step {stopped['step']}, which is saved" in said
    assert stopped["event"] == "stopped" and stopped["signal"] == signal.Signals(number).name
    assert stopped["step"] == max(runs.losses(tmp_path)) == max(runs.saved(tmp_path))
    assert step in (None, stopped["step"])
    code, said = runs.pretrain(tmp_path, tiny_store)
    assert code == 0 and f"resumed from step {stopped['step']}, verified\n" in said
    runs.assert_same_run(tmp_path, whole_run)


def test_a_signal_from_outside(tiny_store, tmp_path):
    settings = {**LONG, "train.steps": 100_000}
    process = runs.start_pretrain(tmp_path, tiny_store, **settings)
    while process.poll() is None and lines(tmp_path / "metrics.jsonl") < 30:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = runs.finish(process, 75)
    assert said.count("error:") == 1 and "Traceback" not in said
    assert max(runs.saved(tmp_path)) == max(runs.losses(tmp_path)) == runs.rows(tmp_path, "events")[-1]["step"]
