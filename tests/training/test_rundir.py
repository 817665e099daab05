"""The lock of a run directory, between processes and after their deaths."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chinchilla_jax.errors import StorageError, UserError
from chinchilla_jax.training.rundir import LOCK, lock

NO_LOCKS = """
import errno, fcntl
def refuse(*_):
    raise OSError(errno.ENOLCK, "no locks available")
fcntl.flock = refuse
"""
HOLD = """
import sys, time
from chinchilla_jax.training.rundir import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path, request):
    """Another process that holds the lock of `tmp_path`."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    script = NO_LOCKS * ("no_locks" in request.fixturenames) + HOLD
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_job_is_told_who_holds_it(tmp_path, other):
    with pytest.raises(UserError) as error, lock(tmp_path):
        pass
    assert error.value.exit_code == 78
    assert f"process {other.pid} on {socket.gethostname()}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_is_taken_over_with_a_note(tmp_path, other, number, capfd):
    other.send_signal(number)
    other.wait()
    with lock(tmp_path):
        assert f"from process {other.pid}" in capfd.readouterr().err


def test_released_on_exit_and_on_exceptions(tmp_path, capfd):
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} "), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass
    assert capfd.readouterr().err == ""


def test_the_folder_is_made_and_a_bad_one_is_one_line(tmp_path):
    with lock(tmp_path / "runs" / "new"):
        assert json.loads((tmp_path / "runs/new" / f"{LOCK}.json").read_text())["pid"] == os.getpid()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot lock"), lock(tmp_path / "file"):
        pass


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that knows no locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_a_living_holder_is_respected(tmp_path, other, no_locks):
    with pytest.raises(UserError, match=f"process {other.pid} "), lock(tmp_path):
        pass


def test_without_locks_the_dead_are_taken_over(tmp_path, other, no_locks, capfd):
    other.kill()
    other.wait()
    with lock(tmp_path):
        assert "took over" in capfd.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\x00" * 100])
def test_an_unreadable_note_is_no_obstacle(tmp_path, content):
    (tmp_path / f"{LOCK}.json").write_text(content)
    with lock(tmp_path):
        pass


@pytest.mark.parametrize("name, message", [("manifest.json", "is a token store"), ("book.txt", "such as book.txt;")])
def test_a_folder_of_something_else_is_no_place_for_a_run(name, message, tmp_path):
    (tmp_path / "slurm-1.out").touch()
    with lock(tmp_path):
        pass
    (tmp_path / name).touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        lock(tmp_path).__enter__()
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "config.json").touch()
    if name != "manifest.json":
        with lock(tmp_path):
            pass
