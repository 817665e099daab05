"""Two processes of one run, and a run that goes on elsewhere."""

import socket
from pathlib import Path

import numpy as np
import pytest

from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.slow
def test_two_processes_equal_one(whole_run, tiny_store, tmp_path, cache):
    for said in two_processes(tmp_path, tiny_store, cache, 0, 4):
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
def test_a_signal_to_one_process_stops_both(tiny_store, tmp_path, cache):
    """On parameters that no process has the whole of."""
    sharded = {"mesh.data": 1, "mesh.fsdp": 2}
    for said in two_processes(tmp_path, tiny_store, cache, 75, 1, STOP, **sharded):
        assert "stopped by SIGTERM after step 10, which is saved" in said
    assert max(runs.saved(tmp_path)) == max(runs.losses(tmp_path)) == 10
    two_processes(tmp_path, tiny_store, cache, 0, 1, **sharded)
    assert list(runs.losses(tmp_path)) == list(range(1, 21))


def two_processes(run_dir: Path, store: Path, cache: Path, code: int, devices: int, wrap="", **changes) -> list[str]:
    """What two processes of so many devices each say that train together and end with `code`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    started = [
        runs.start_pretrain(
            run_dir,
            store,
            *("--coordinator", address, "--processes", "2", "--process", str(rank)),
            devices=devices,
            cache=cache,
            wrap=wrap,
            **changes,
        )
        for rank in range(2)
    ]
    return [runs.finish(process, code) for process in started]


def test_fewer_devices_go_on_and_say_so(copy, whole_run, tiny_store, cache):
    runs.forget(copy, 10)
    said = runs.finish(runs.start_pretrain(copy, tiny_store, cache=cache))
    assert (
        "resumed from step 10, verified; saved on 8 devices (data 8, fsdp 1, tensor 1), going on with 1 device ("
        in said
    )
    np.testing.assert_allclose(list(runs.losses(copy).values()), list(runs.losses(whole_run).values()), rtol=1e-5)


def test_another_mesh_and_smaller_parts_go_on(copy, whole_run, tiny_store):
    runs.forget(copy, 10)
    changes = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "train.microbatches": 2}
    code, said = runs.pretrain(copy, tiny_store, **changes)
    assert code == 0 and "going on with 8 devices (data 2, fsdp 2, tensor 2)" in said
    np.testing.assert_allclose(list(runs.losses(copy).values()), list(runs.losses(whole_run).values()), rtol=1e-5)
