"""Locks of the system, and leases where files cannot be locked."""

import errno
import fcntl
import json
import os
import threading
import time

import pytest

from chinchilla_jax import locks
from chinchilla_jax.errors import UserError


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    monkeypatch.setattr(locks, "EXPIRY", 0.6)
    monkeypatch.setattr(locks, "SETTLE", 0.1)


def test_a_lease_is_respected_while_its_holder_lives_and_given_back(tmp_path, quick, capfd):
    note = tmp_path / "lease.json"
    refused = pytest.raises(UserError, match=f"in use by process {os.getpid()} ")
    with locks.lease(note, pytest.fail), refused, locks.lease(note, pytest.fail):
        pass
    assert not note.exists()
    with locks.lease(note, pytest.fail):
        pass
    assert "took over" not in capfd.readouterr().err


def test_a_lease_without_beats_is_taken_over(tmp_path, quick, capfd):
    note = tmp_path / "lease.json"
    note.write_text('{"pid": 1, "host": "elsewhere", "token": "x"}')
    began = time.monotonic()
    with locks.lease(note, pytest.fail):
        assert time.monotonic() - began > 0.6
        assert "from process 1 on elsewhere, which gave no sign of life" in capfd.readouterr().err


def test_of_two_that_come_at_once_one_goes_on_and_who_lost_it_hears_of_it(tmp_path, quick, monkeypatch):
    note, told = tmp_path / "lease.json", threading.Event()
    other = '{"pid": 2, "host": "elsewhere", "token": "x"}'
    with locks.lease(note, told.set):
        note.write_text(other)
        assert told.wait(5)
    assert note.read_text() == other, "it is not ours to give back"
    note.unlink()
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: note.write_text(other) or sleep(seconds))
    with pytest.raises(UserError, match="process 2 on elsewhere"), locks.lease(note, pytest.fail):
        pass


def test_one_at_a_time_and_given_back(tmp_path):
    lock = locks.take(tmp_path / "lock")
    assert lock and locks.take(tmp_path / "lock") is None
    lock.release()
    again = locks.take(tmp_path / "lock")
    assert again
    again.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_files_cannot_be_locked_a_file_names_the_holder(tmp_path, monkeypatch, number):
    """Any other error is not about locks."""

    def refuse(*_):
        raise OSError(number, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = locks.take(tmp_path / "lock")
    assert (tmp_path / "lock.soft").exists() and locks.take(tmp_path / "lock") is None
    lock.release()
    assert not (tmp_path / "lock.soft").exists()
    number = errno.EIO
    with pytest.raises(OSError, match="no locks available"):
        locks.take(tmp_path / "lock")


def test_a_note_says_who_holds_a_folder(tmp_path):
    note = tmp_path / "new/lock.json"
    with locks.hold(tmp_path / "new/lock"):
        assert json.loads(note.read_text())["pid"] == os.getpid()
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on .*wait for it"):
            locks.hold(tmp_path / "new/lock").__enter__()
    assert not note.exists()


def test_what_is_repeated_ends_by_itself_or_with_its_block():
    calls, enough = [], threading.Event()

    def count():
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            enough.set()
        return len(calls) == 3

    with locks.repeated(0.001, count, "counting"):
        assert enough.wait(5)
        time.sleep(0.02)
    assert calls == ["counting"] * 3, "until it returns something true"
    with locks.repeated(60, count, "waiting"):
        pass
    assert len(calls) == 3 and all(thread.name != "waiting" for thread in threading.enumerate())
