"""Hooks: when they are due, what a failing one costs, and what a signal in one does."""

import json

import pytest

from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.inference.text import Completer
from chinchilla_jax.training import hooks as room
from chinchilla_jax.training.hooks import Hook, Hooks
from chinchilla_jax.training.signals import Watchdog
from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.parametrize("failing", ["sample", "validation"])
def test_a_failing_hook_is_a_warning(whole_run, tiny_store, tmp_path, monkeypatch, failing):
    """At every step that it is due, the last one too: the run ends as it would have, but for that hook's figures."""

    def broken(*args, **kwargs):
        raise ValueError("no such luck")

    owner, name = {"sample": (Completer, "stream"), "validation": (Likelihood, "added")}[failing]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        code, said = runs.pretrain(tmp_path, tiny_store)
    assert code == 0 and said.count(f"warning: {failing} after step") == 3 and "ValueError: no such luck" in said
    assert runs.leaves(tmp_path, 20) == runs.leaves(whole_run, 20) and runs.losses(tmp_path) == runs.losses(whole_run)
    assert [row["step"] for row in runs.rows(tmp_path, "events") if row["event"] == "hook_failed"] == [8, 16, 20]
    code, said = runs.pretrain(tmp_path, tiny_store)
    assert code == 0 and "nothing to do" in said


class Log(list):
    """In the place of a writer and a terminal: what they are told, in order."""

    def __init__(self, run_dir):
        self.run_dir = run_dir

    def metrics(self, row):
        self.append(row)

    def event(self, name, **facts):
        self.append({"event": name, **facts})

    def say(self, line):
        self.append(line)


class Asked:
    """Interrupts that are asked at the call with this number."""

    def __init__(self, at):
        self.left = at

    def stop(self):
        self.left -= 1
        return "SIGTERM" if self.left <= 0 else None


def hooks_of(tmp_path, found: list[Hook], at: int = 99) -> tuple[Hooks, Log]:
    log = Log(tmp_path)
    return Hooks(found, 10, log, log, Asked(at), Watchdog()), log


@pytest.mark.parametrize("every, due", [(3, [3, 6, 9, 10]), (5, [5, 10]), (0, [10]), (99, [10])])
def test_a_hook_is_due_every_so_many_steps_and_at_the_end(every, due):
    assert [done for done in range(1, 11) if Hook(every, None).due(done, 10)] == due


def test_those_left_out_are_the_ones_without_a_row(tmp_path):
    """A run was killed between two hooks of step 4: rows of the step's own training and of other steps do not count."""
    hooks, _ = hooks_of(tmp_path, [Hook(2, None, "a"), Hook(4, None, "b"), Hook(4, None, "c"), Hook(3, None, "d")])
    rows = [{"step": 2, "valid": 1}, {"step": 4, "loss": 2.0}, {"step": 4, "valid": 1}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [hook.name for hook in hooks.left_out(4)] == ["b", "c"]
    assert hooks.left_out(0) == [] and [hook.name for hook in hooks.left_out(6)] == ["a", "d"]


def test_a_signal_in_a_hook_keeps_the_figures_of_those_before(tmp_path):
    def first(state, poll):
        poll()
        return {"valid_loss": 2.0, "by_source": {"x": 1}, "count": 1234}

    def second(state, poll):
        for _ in range(5):
            poll()
        pytest.fail("it was to stop")

    hooks, log = hooks_of(
        tmp_path, [Hook(1, first, "first"), Hook(1, second, "second"), Hook(1, second, "third")], at=3
    )
    found = hooks.run(hooks.hooks, 7, None)
    assert found == ({"valid_loss": 2.0, "by_source": {"x": 1}, "count": 1234}, "SIGTERM")
    assert [row.get("event", "row") for row in log if isinstance(row, dict)] == ["row", "evaluated"]
    assert log[0]["step"] == 7 and log[-1] == "valid_loss 2.0000 | count 1,234", "a dict is for the file alone"


def test_among_several_processes_a_failure_is_none_of_a_hooks_own(tmp_path, monkeypatch):
    """Others may be in the middle of the same collective: it ends the run."""

    def broken(state, poll):
        raise RuntimeError("no")

    hooks, log = hooks_of(tmp_path, [Hook(1, broken, "sample")])
    assert hooks.run(hooks.hooks, 7, None) == ({"hook_failed": "sample"}, None)
    monkeypatch.setattr(room.peers, "current", lambda: object())
    with pytest.raises(RuntimeError, match="no"):
        hooks.run(hooks.hooks, 8, None)
    assert [row["step"] for row in log if isinstance(row, dict) and "event" in row] == [7, 7]
