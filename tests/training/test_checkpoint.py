"""Saves: what comes back, what is kept, full disks, and processes that are killed in one."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from chinchilla_jax.errors import StorageError
from chinchilla_jax.training import checkpoint, integrity, restore
from tests import xla
from tests.training import states
from tests.training.states import META, opened, plain, restored, save_for_ever


def test_nothing_saved_restores_none(tmp_path):
    with opened(tmp_path / "new") as checkpoints:
        assert checkpoints.restore(states.abstract(8)) is None
        assert checkpoints.steps() == []


@pytest.mark.parametrize("asynchronous", [True, False])
def test_what_comes_back_is_what_was_saved(tmp_path, asynchronous):
    with opened(tmp_path, asynchronous=asynchronous, verify="full") as checkpoints:
        checkpoints.save(7, states.make(7))
        checkpoints.wait()
        assert checkpoints.steps() == [7]
        found = checkpoints.restore(states.abstract(8))
    assert (found.step, found.meta, found.notes) == (7, META, [])
    states.assert_same(found.state, states.make(7))
    wanted = jax.tree.map(lambda x: x.sharding, states.abstract(8))
    assert jax.tree.map(lambda x: x.sharding, found.state) == wanted


def test_donating_right_after_an_asynchronous_save_is_safe(tmp_path):
    update = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    with opened(tmp_path, verify="full") as checkpoints:
        for trial in range(20):
            params = states.make(trial).params
            checkpoints.save(trial, params)
            update(params)
            states.assert_same(checkpoints.restore(states.abstract(8).params).state, states.make(trial).params)


def test_retention(tmp_path):
    with opened(tmp_path, keep=2, keep_every=4) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, states.make(step).params)
        checkpoints.wait()
        assert checkpoints.steps() == [4, 6, 7]
        # Going back to an older step leaves the newer ones behind, or a later start would resume from them.
        checkpoints.save(5, states.make(5).params, wait=True)
        assert checkpoints.steps() == [4, 5]
        checkpoints.save(5, states.make(6).params, wait=True)
        states.assert_same(checkpoints.restore(states.abstract(8).params).state, states.make(6).params)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4", "5"]


def test_any_path_will_do(tmp_path):
    folder = tmp_path / "mit Leerzeichen" / "ключ 钥匙"
    with opened(folder) as checkpoints:
        checkpoints.save(1, states.make(1))
    assert restored(folder).step == 1


def test_an_exception_does_not_lose_the_save_in_flight(tmp_path):
    with pytest.raises(KeyError), opened(tmp_path) as checkpoints:
        checkpoints.save(3, states.make(3))
        raise KeyError("the loop failed")
    assert restored(tmp_path).step == 3


def test_orbax_alone_can_read_it(three):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        raw = reader.restore(three / "30/default/params")
    np.testing.assert_array_equal(raw["params/blocks/w"], states.make(30).params["blocks"]["w"])


def test_small_leaves_are_written_whole(three, tmp_path, monkeypatch):
    """By one replica of eight, where the pieces of all would be smaller than `SHARED`."""

    def pieces(folder):
        rows = json.loads((folder / "default/params/array_metadatas/process_0").read_text())["array_metadatas"]
        return {row["array_metadata"]["param_name"]: row["array_metadata"]["write_shape"] for row in rows}

    assert pieces(three / "30") == {"params/blocks/b": [16], "params/blocks/w": [8, 160], "params/emb": [1, 32]}
    monkeypatch.setattr(checkpoint, "SHARED", 8)
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, states.make(1))
    assert pieces(tmp_path / "1")["params/blocks/b"] == [2]


def test_only_jax_arrays_are_saved(tmp_path):
    with opened(tmp_path) as checkpoints, pytest.raises(TypeError, match="params/w is a ndarray"):
        checkpoints.save(1, {"params": {"w": np.zeros(3)}})


# Storage


def test_too_little_space_is_said_beforehand(folder, monkeypatch):
    with opened(folder) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        with pytest.raises(StorageError, match=r"needs \d{6} bytes and 1000 are free") as error:
            checkpoints.save(40, states.make(40))
    assert error.value.exit_code == 74
    assert sorted(p.name for p in folder.iterdir()) == ["10", "20", "30"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from Orbax's failed writer
def test_a_full_disk_loses_nothing_older(folder, capfd):
    """A limit on the size of a file stands for the disk: writing fails halfway, in the background."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(folder) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            checkpoints.save(40, states.make(40))
            wrong = r"4{} was not written \(File too large\); it needs \d+ bytes"
            with pytest.raises(StorageError, match=wrong.format(1)) as error:
                checkpoints.save(41, states.make(41))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        said = capfd.readouterr().err
        assert re.match(f"warning: checkpoint {wrong.format(0)}", said) and "Traceback" not in said
        assert "\n" not in str(error.value)
        assert checkpoints.steps() == [10, 20, 30]
        assert checkpoints.restore(states.abstract(8)).step == 30
        checkpoints.save(42, states.make(42))  # space is there again
    assert restored(folder, level="full").step == 42
    assert not list(folder.glob("*" + restore.PARTIAL))


@pytest.mark.parametrize("then", ["the next save", "the close"])
def test_what_a_failed_save_still_writes_when_it_is_removed_goes_later(folder, monkeypatch, then):
    """Of a save's files one fails first; Orbax does not wait for the others."""
    late = folder / f"40{restore.PARTIAL}/default/params/d/late"
    with opened(folder) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(integrity, "write_manifest", lambda *_: (_ for _ in ()).throw(OSError("no space")))
            with pytest.raises(StorageError, match="no space"):
                checkpoints.save(40, states.make(40), wait=True)
        late.parent.mkdir(parents=True)
        late.write_text("late")
        if then == "the next save":
            checkpoints.save(41, states.make(41), wait=True)
            assert not late.exists()
    assert not list(folder.glob("*" + restore.PARTIAL))


def test_a_save_that_failed_once_does_not_end_the_run(folder, monkeypatch, capfd):
    """The next one takes its place, at once and not in the background."""
    with opened(folder) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(integrity, "write_manifest", lambda *_: (_ for _ in ()).throw(OSError("a moment's trouble")))
            checkpoints.save(40, states.make(40))
            checkpoints._thread.submit(int).result()
        checkpoints.save(41, states.make(41))
        assert re.search("40 was not written .*a moment's trouble.*saving step 41 in its place", capfd.readouterr().err)
        assert checkpoints.steps()[-1] == 41
    assert restored(folder, level="full").step == 41


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot create"):
        opened(tmp_path / "file/checkpoints")


# Killed


def saving(folder: str, asynchronous: bool, committed) -> None:
    save_for_ever(opened(Path(folder), asynchronous=asynchronous, keep=2), committed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_50_kills_in_a_save(tmp_path):
    """At random moments; after each, nothing committed is lost and nothing half is left."""
    for before, committed in states.kills(saving, str(tmp_path), trials=50, seed=5):
        with opened(tmp_path) as checkpoints:
            assert [p.name for p in tmp_path.iterdir() if not p.name.isdecimal()] == []
            found = checkpoints.restore(plain(0))
        assert found.notes == [] and found.step >= committed > before
        states.assert_same(found.state, plain(found.step))


PEER = """
import os, signal, sys, time, jax
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
import pathlib
from tests.training import states
from tests.training.states import opened
from chinchilla_jax.parallel import peers
from chinchilla_jax.training.signals import Interrupts
with opened(pathlib.Path(folder), verify="full", keep=2) as checkpoints:
    for step in (1, 2, 3):
        checkpoints.save(step, states.make(step))
    checkpoints.wait()
    jax.experimental.multihost_utils.sync_global_devices("saved")
    assert checkpoints.steps() == [2, 3]
    if rank == 0:
        path = max((pathlib.Path(folder) / "3").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    jax.experimental.multihost_utils.sync_global_devices("injured")
    found = checkpoints.restore(states.abstract(8))
    assert found.step == 2 and "checkpoint 3 is damaged" in found.notes[0], found.notes
peers.start()
with Interrupts() as interrupts:
    for call in range(1000):
        if rank == 1 and call == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        if stopped := interrupts.stop():
            break
        time.sleep(0.01)
print("stopped by", stopped, "at call", call, flush=True)
"""


def two_processes(script: str, folder: Path) -> tuple[list[int], list[str]]:
    """Exit codes and output of two processes of four devices each that run `script` as ranks 0 and 1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "XLA_FLAGS": xla.flags(4),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-c", script]
    peers = [
        subprocess.Popen([*command, str(rank), str(port), str(folder)], env=env, stdout=-1, stderr=-2, text=True)
        for rank in range(2)
    ]
    try:
        output = [peer.communicate(timeout=180)[0] for peer in peers]
    finally:
        for peer in peers:
            peer.kill()
    return [peer.returncode for peer in peers], output


def test_two_processes_save_agree_and_restore(tmp_path):
    codes, output = two_processes(PEER, tmp_path)
    assert codes == [0, 0], output
    [one, other] = [said.splitlines()[-1] for said in output]
    assert one == other and one.startswith("stopped by SIGTERM at call"), output
    found = restored(tmp_path, 1, level="full")
    assert found.step == 2
    states.assert_same(found.state, states.make(2))


DYING_PEER = """
import os, signal, sys, jax
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank, heartbeat_timeout_seconds=5)
import pathlib
from tests.training import states
from tests.training.states import opened
with opened(pathlib.Path(folder)) as checkpoints:
    checkpoints.save(1, states.make(1), wait=True)
    checkpoints.save(2, states.make(2))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_of_one_process_of_two_in_a_save(tmp_path):
    begun = time.monotonic()
    codes, output = two_processes(DYING_PEER, tmp_path)
    assert codes[0] != 0 and codes[1] == -signal.SIGKILL, output
    assert time.monotonic() - begun < 150, "JAX's own patience is longer"
    with opened(tmp_path) as checkpoints:
        found = checkpoints.restore(states.abstract(8))
        assert sorted(p.name for p in tmp_path.iterdir()) == [str(n) for n in range(1, found.step + 1)]
    states.assert_same(found.state, states.make(found.step))
