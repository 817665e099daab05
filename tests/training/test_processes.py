"""Two processes of one run, and a run that goes on elsewhere."""

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.training.goodput import goodput
from tests import runs
from tests.forked import Forked


@pytest.mark.slow
def test_two_processes_equal_one(whole_run, tiny_store, tmp_path):
    for said in two_processes(tmp_path, tiny_store, (0, 0), 4):
        assert "Traceback" not in said
    np.testing.assert_allclose(list(runs.losses(tmp_path).values()), list(runs.losses(whole_run).values()), rtol=1e-5)
    assert [row["step"] for row in runs.rows(tmp_path)] == [row["step"] for row in runs.rows(whole_run)]
    runs.forget(tmp_path, 15)
    code, said = runs.pretrain(tmp_path, tiny_store)
    assert code == 0 and "resumed from step 15, verified\n" in said
    np.testing.assert_allclose(runs.losses(tmp_path)[20], runs.losses(whole_run)[20], rtol=1e-5)


STOP = """
import os, signal, jax
from chinchilla_jax.training import loop
log = loop.Run.log
def stop(self, pending, waited):
    log(self, pending, waited)
    if pending and pending[0] == 6 and jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
loop.Run.log = stop
"""


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_once(tiny_store, tmp_path):
    """On parameters that no process has the whole of: step 7 was under way, and one step is for agreeing."""
    sharded = {"mesh.data": 1, "mesh.fsdp": 2, "train.eval-every": 0, **runs.SILENT}
    for said in two_processes(tmp_path, tiny_store, (75, 75), 1, STOP, **sharded):
        assert "stopped by SIGTERM after step" in said and "Traceback" not in said
    stopped = max(runs.losses(tmp_path))
    assert stopped in (7, 8, 9) and max(runs.saved(tmp_path)) == stopped
    two_processes(tmp_path, tiny_store, (0, 0), 1, **sharded)
    assert list(runs.losses(tmp_path)) == list(range(1, 21))


# What fails on process 1 alone, where it says so with which exit code.
BATCH = """
from chinchilla_jax.data import batches
at = batches.Batches.at
def fail(self, step, rows=None):
    if step == 12 and RANK == 1:
        raise OSError("the file system is gone")
    return at(self, step, rows)
batches.Batches.at = fail
"""
HOOK = """
from chinchilla_jax.evaluation import likelihood
added = likelihood.Likelihood.added
def fail(*args):
    if RANK == 1:
        raise RuntimeError("no validation today")
    return added(*args)
likelihood.Likelihood.added = fail
"""
SAVE = """
from chinchilla_jax.training import checkpoint
commit = checkpoint.Checkpoints._commit
def fail(self, step, *rest):
    if step == 10 and RANK == 1:
        raise OSError("the file system is gone")
    return commit(self, step, *rest)
checkpoint.Checkpoints._commit = fail
"""
RESTORE = """
from chinchilla_jax.training import restore
read = restore.read
def fail(*args):
    if RANK == 1:
        raise MemoryError("no room")
    return read(*args)
restore.read = fail
"""
KILL = """
import os
from chinchilla_jax.training import loop
log = loop.Run.log
def kill(self, pending, waited):
    log(self, pending, waited)
    if pending and pending[0] == 13 and RANK == 1:
        self.checkpoints.wait()
        os.kill(os.getpid(), 9)
loop.Run.log = kill
"""
FAULTS = {
    "batch": (BATCH, 74, "OSError: the file system is gone"),
    "hook": (HOOK, 1, "RuntimeError: no validation today"),
    "save": (SAVE, 74, "StorageError: checkpoint 10 was not written (the file system is gone)"),
    "restore": (RESTORE, 78, "MemoryError: no room"),
    "kill": (KILL, -9, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_on_one_process_ends_both_and_is_told(fault, copy, tiny_store, tmp_path):
    wrap, code, message = FAULTS[fault]
    runs.forget(copy, 15)
    run_dir = copy if fault == "restore" else tmp_path / "run"
    began = time.monotonic()
    settings = {**runs.SILENT, "train.eval-every": 5 if fault == "hook" else 0}
    first, second = two_processes(run_dir, tiny_store, (69, code), 1, wrap, **settings)
    assert time.monotonic() - began < 90, "a minute, and the start of Python"
    [told] = [line for line in first.splitlines() if line.startswith("error:")]  # libraries write of theirs elsewhere
    assert told.startswith("error: a peer was lost")
    if message:
        assert f"error: process 1 of 2 fails: {message}" in second and f"process 1 ({message}" in first
    if fault not in ("restore", "hook"):
        assert runs.saved(run_dir)[-1] in (5, 10), "what was being written is whole"


# Less patience with one another than where a peer may be far away, and compiled programs of every process are kept.
BRISK = """
import types
from jax._src import compiler
from chinchilla_jax.parallel import peers
peers.BEAT, peers.GRACE, peers.DRAIN = 1.0, 2.0, 3.0
compiler.distributed = types.SimpleNamespace(global_state=types.SimpleNamespace(process_id=0))
"""


def two_processes(run_dir: Path, store: Path, codes: tuple[int, int], devices: int, wrap="", **changes) -> list[str]:
    """What two processes of so many devices each say that train together and end with `codes`."""
    started = [
        runs.start_pretrain(run_dir, store, *words, devices=devices, wrap=f"RANK = {rank}{BRISK}{wrap}", **changes)
        for rank, words in enumerate(cluster())
    ]
    return [runs.finish(process, code) for process, code in zip(started, codes)]


def cluster() -> list[list[str]]:
    """The flags of two processes that are to find one another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [["--coordinator", address, "--processes", "2", "--process", str(rank)] for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("command", [["evaluate"], ["generate", "--temperature", "0", "--max-new-tokens", "5"]])
def test_other_commands_join_a_cluster_too(command, copy):
    words = [*command, "--run-dir", str(copy)]
    alone = runs.ask(*words)
    started = [Forked(BRISK, [*words, *more], runs.environment(2)) for more in cluster()]
    first, second = (runs.finish(process) for process in started)
    assert "next: " in first and "next: " not in second
    if command == ["evaluate"]:
        found = json.loads((copy / "evaluation.json").read_text())["loss_nats_per_token"]
        assert found == pytest.approx(alone["loss_nats_per_token"], rel=1e-5)
    else:
        assert alone["completions"][0]["text"] in first


@pytest.mark.slow
def test_two_supervised_processes_survive_a_kill(tiny_store, tmp_path):
    """One of the two is killed; both are started again, and the run ends as if nothing had been."""
    settings = {**runs.SETTINGS, **runs.SILENT, "train.steps": 80, "train.eval-every": 0, "data.store": tiny_store}
    settings |= {"checkpoint.every": 10, "checkpoint.keep": 2, "run-dir": tmp_path / "run"}
    words = ["pretrain", *runs.arguments(settings)]
    supervise = ["-m", "chinchilla_jax", "supervise", "--wait", "1"]
    started = [runs.start([*supervise, *words, *more], 1) for more in cluster()]
    timing = tmp_path / "run" / "timing.jsonl"
    while not timing.exists() or timing.read_bytes().count(b"\n") < 25:
        assert all(process.poll() is None for process in started)
        time.sleep(0.01)
    children = Path(f"/proc/{started[1].pid}/task/{started[1].pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    first, second = (runs.finish(process) for process in started)
    # The killed one may be back before the other has left, and JAX's service then aborts that one: -6 in place of 69.
    assert re.search("supervise: exit code (69|-6)", first) and "supervise: exit code -9" in second
    assert list(runs.losses(tmp_path / "run")) == list(range(1, 81))
    shares = goodput(runs.rows(tmp_path / "run", "events"))["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3) and shares["lost"] > 0 and "goodput over" in first


def test_fewer_devices_go_on_and_say_so(copy, whole_run, tiny_store):
    runs.forget(copy, 10)
    said = runs.finish(runs.start_pretrain(copy, tiny_store, **runs.SILENT))
    assert (
        "resumed from step 10, verified; saved on 8 devices (data 8, fsdp 1, tensor 1), going on with 1 device ("
        in said
    )
    np.testing.assert_allclose(list(runs.losses(copy).values()), list(runs.losses(whole_run).values()), rtol=1e-5)


def test_another_mesh_and_smaller_parts_go_on(copy, whole_run, tiny_store):
    runs.forget(copy, 10)
    changes = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "train.microbatches": 2, **runs.SILENT}
    code, said = runs.pretrain(copy, tiny_store, **changes)
    assert code == 0 and "going on with 8 devices (data 2, fsdp 2, tensor 2)" in said
    np.testing.assert_allclose(list(runs.losses(copy).values()), list(runs.losses(whole_run).values()), rtol=1e-5)
