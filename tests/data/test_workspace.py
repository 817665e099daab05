"""The temporary folder beside a store."""

import errno
import fcntl
import os
import shutil

import pytest

from chinchilla_jax.data.workspace import publish, workspace
from chinchilla_jax.errors import UserError


def test_it_is_emptied_before_and_removed_after(tmp_path):
    store = tmp_path / "deep" / "store"
    stale = store.parent / ".store.preparing"
    (stale / "old").mkdir(parents=True)
    (stale / "junk").write_text("x")
    with workspace(store) as folder:
        assert folder == stale and sorted(os.listdir(folder)) == ["lock"]
        (folder / "new").mkdir()
    assert os.listdir(store.parent) == []


def test_an_error_removes_it_and_an_interrupt_leaves_it(tmp_path):
    with pytest.raises(ValueError), workspace(tmp_path / "s", key="k"):
        raise ValueError
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), workspace(tmp_path / "s", key="k") as folder:
        (folder / "half").write_text("done")
        raise KeyboardInterrupt
    said = []
    with workspace(tmp_path / "s", key="k", say=said.append) as folder:
        assert (folder / "half").read_text() == "done" and "going on" in said[0]
        raise_later = KeyboardInterrupt()
    assert os.listdir(tmp_path) == [] and raise_later


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="/file is a file and lies in the way"), workspace(tmp_path / "file" / "s"):
        raise AssertionError("not reached")


def test_only_a_full_disk_is_a_full_disk(tmp_path):
    with pytest.raises(UserError, match="disk is full"), workspace(tmp_path / "s", key="k"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), workspace(tmp_path / "s", key="k"):
        raise PermissionError(errno.EACCES, "no")


def test_a_lock_that_went_with_its_holder_is_no_lock(tmp_path, monkeypatch):
    """Between opening the file and locking it another process ends, and takes folder and file away."""
    flock, held = fcntl.flock, []

    def late(lock, how):
        if not held:
            shutil.rmtree(tmp_path / ".s.preparing")
        held.append(lock)
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with workspace(tmp_path / "s", key="k") as folder:
        assert sorted(os.listdir(folder)) == ["key", "lock"] and len(held) > 1
        with pytest.raises(UserError, match="another process"), workspace(tmp_path / "s", key="k"):
            raise AssertionError
    assert os.listdir(tmp_path) == []


def test_publishing_takes_the_place_of_what_was_there(tmp_path):
    store = tmp_path / "s"
    for content in ("1", "2"):
        with workspace(store) as folder:
            (folder / "store").mkdir()
            (folder / "store" / "file").write_text(content)
            publish(folder / "store", store)
        assert (store / "file").read_text() == content and os.listdir(tmp_path) == ["s"]
