"""Checkpoints under every injury: what is restored is what was saved, or the reason is said."""

import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import states

from chinchilla_jax.config import CheckpointConfig
from chinchilla_jax.errors import StorageError, UserError
from chinchilla_jax.training import integrity, orbax_logs, packing, restore
from chinchilla_jax.training.checkpoint import Checkpoints
from tests import xla

META = {"config": {"train": {"steps": 40}}, "data": "f00d"}


def opened(folder, **changes) -> Checkpoints:
    return Checkpoints(folder, CheckpointConfig(**changes), meta=META)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder with checkpoints 10, 20 and 30 of 8 devices."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    with opened(folder) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, states.make(step))
    return folder


@pytest.fixture
def folder(three, tmp_path):
    """A copy of `three` to injure."""
    return shutil.copytree(three, tmp_path / "checkpoints")


def restored(folder, devices=8, **changes):
    return restore.newest(folder, states.abstract(devices), level=changes.pop("level", "hash"), **changes)


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


def test_restored_arrays_can_be_donated(three):
    state = restored(three).state
    update = jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s), donate_argnums=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(state.params)
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize("devices", [4, 2, 1])
def test_another_mesh_restores_the_same_bits_and_goes_on(three, tmp_path, devices):
    found = restored(three, devices, level="full")
    states.assert_same(found.state, states.make(30))
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(found.state)} == {devices}
    with opened(tmp_path, verify="full") as checkpoints:
        doubled = jax.jit(lambda s: jax.tree.map(lambda x: x + x, s), donate_argnums=0)(found.state.params)
        checkpoints.save(31, doubled, wait=True)
        again = checkpoints.restore(states.abstract(8).params)
    np.testing.assert_array_equal(again.state["blocks"]["w"], 2 * np.asarray(states.make(30).params["blocks"]["w"]))


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


# Structure


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.params["blocks"].update(w=jax.ShapeDtypeStruct((64, 160), jnp.bfloat16)),
            r"params/blocks/w is float32",
        ),
        (
            lambda s: s.params["blocks"].update(w=jax.ShapeDtypeStruct((64, 161), jnp.float32)),
            r"\[64, 160\].*\[64, 161\]",
        ),
        (
            lambda s: s.params.update(more=jax.ShapeDtypeStruct((2,), jnp.float32)),
            "params/more is not in the checkpoint",
        ),
        (lambda s: s.params.pop("emb"), "params/emb is not in the model"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(three, change, message):
    abstract = states.abstract(8)
    change(abstract)
    with pytest.raises(UserError, match=message) as error:
        restore.newest(three, abstract, level="hash")
    assert error.value.exit_code == 78 and "\n" not in str(error.value)


def test_only_jax_arrays_are_saved(tmp_path):
    with opened(tmp_path) as checkpoints, pytest.raises(TypeError, match="params/w is a ndarray"):
        checkpoints.save(1, {"params": {"w": np.zeros(3)}})


def test_parameters_alone_on_one_device(three):
    plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), states.abstract(1).params)
    found = restore.load_params(three, plain, level="full")
    states.assert_same(found.state, states.make(30).params)
    average = restore.load_params(three, plain, average=True, step=20)
    states.assert_same(average.state, states.make(20).opt_state[-1].average)
    with pytest.raises(UserError, match="there is no checkpoint"):
        restore.load_params(three.parent / "elsewhere", plain)
    with pytest.raises(UserError, match="has no checkpoint 11; it has 10, 20, 30"):
        restore.load_params(three, plain, step=11)


def test_parameters_fall_back_too(folder):
    next((folder / "30/default/params/d").iterdir()).unlink()
    found = restore.load_params(folder, states.abstract(2).params)
    assert found.step == 20 and "checkpoint 30 is damaged: default/params/d/" in found.notes[0]


@pytest.mark.parametrize("average", [False, True])
def test_a_part_is_read_and_checked_alone(folder, monkeypatch, average):
    """Bytes hashed are those of its own item, and damage elsewhere does not matter to it."""
    hashed, hash_files = [], integrity.hash_files
    monkeypatch.setattr(integrity, "hash_files", lambda at, names: hashed.extend(names) or hash_files(at, names))
    flip(next(p for p in files_of(folder / "30/default/carry/d") if p.stat().st_size))
    assert restore.load_params(folder, states.abstract(2).params, average=average).step == 30
    item = f"default/{'average' if average else 'params'}/"
    rest = {name.rpartition("/")[2] for name in hashed if not name.startswith(item)}
    assert rest == {"_CHECKPOINT_METADATA", "commit_success.txt"}
    loaded = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(states.abstract(2).params))
    assert sum((folder / "30" / name).stat().st_size for name in hashed) < 1.1 * loaded + 8192  # Orbax's own metadata
    assert restored(folder).step == 20


def test_a_checkpoint_of_one_item_goes_on_being_read(folder):
    """Format 1: a whole state in one of Orbax's items."""
    old = folder / "30"
    body = integrity.read_manifest(old)
    shutil.rmtree(old)
    old.mkdir()
    whole = {name: packing.pack(x) for name, x in restore.named_leaves(states.make(30)).items()}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
        writer.save(old / "default", args=ocp.args.PyTreeSave(whole))
    integrity.write_manifest(old, {**{k: v for k, v in body.items() if k != "files"}, "format": 1}, {})
    found = restored(folder, level="full")
    assert found.step == 30
    states.assert_same(found.state, states.make(30))
    assert restore.load_params(folder, states.abstract(2).params, average=True, level="full").step == 30


def test_a_checkpoint_without_the_part_is_refused(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, {"params": states.make(1).params})
    with pytest.raises(UserError, match="holds no average"):
        restore.load_params(tmp_path, states.abstract(1).params, average=True)


# Damage


def files_of(step_folder: Path) -> list[Path]:
    return sorted(p for p in step_folder.rglob("*") if p.is_file())


def test_200_flips_of_one_bit_over_all_files(folder):
    rng, found = random.Random(0), 0
    files = [p for p in files_of(folder / "30") if p.stat().st_size]
    for trial in range(200):
        path = files[trial % len(files)]
        good = path.read_bytes()
        place = rng.randrange(len(good))
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << rng.randrange(8))]) + good[place + 1 :])
        problem = restore.examine(folder / "30", "hash").get("problem", "")
        found += path.name in problem
        path.write_bytes(good)
    assert found == 200
    assert "manifest" in restore.examine(folder / "30", "hash")


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def zero_page(path):
    path.write_bytes(bytes(min(4096, path.stat().st_size)) + path.read_bytes()[4096:])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("injure", [truncate, zero_page, Path.unlink, flip])
def test_every_injury_of_every_file_is_named_and_passed_over(folder, injure, tmp_path):
    for path in files_of(folder / "30"):
        if not path.stat().st_size and injure is not Path.unlink:
            continue
        kept = shutil.copy(path, tmp_path / "kept")
        injure(path)
        assert path.name in restore.examine(folder / "30", "hash")["problem"]
        shutil.copy(kept, path)
    injure(next(p for p in files_of(folder / "30/default/params/d") if p.stat().st_size))
    with opened(folder) as checkpoints:
        found = checkpoints.restore(states.abstract(8))
    assert found.step == 20 and len(found.notes) == 2 and found.notes[1] == "fell back to checkpoint 20"
    states.assert_same(found.state, states.make(20))


def add_file(folder):
    (folder / "default/params/d/surplus").write_bytes(b"x")


def add_link(folder):
    (folder / "default/link").symlink_to("/etc/passwd")


def bad_json(folder):
    (folder / "manifest.json").write_text("{'step': 30}")


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def stray(folder):
    (folder.parent / "40").mkdir()


def no_item(folder):
    shutil.rmtree(folder / "default")


def another_step(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "20", folder)


@pytest.mark.parametrize("injure", [add_file, add_link, bad_json, empty, no_item, another_step])
def test_injuries_of_a_step_folder(folder, injure):
    injure(folder / "30")
    found = restored(folder)
    assert found.step == 20 and found.notes[0].startswith("checkpoint 30 is damaged: ")


def test_a_stray_folder_is_passed_over_and_later_removed(folder):
    stray(folder / "30")
    with opened(folder) as checkpoints:
        found = checkpoints.restore(states.abstract(8))
        assert found.step == 30 and found.notes[0] == "checkpoint 40 is damaged: manifest.json is missing"
        assert checkpoints.steps() == [10, 20, 30]
        checkpoints.save(40, found.state, wait=True)
        assert checkpoints.steps() == [20, 30, 40]


def test_size_level_sees_sizes_and_lets_orbax_speak(folder):
    truncate(next(p for p in files_of(folder / "30/default/params/d") if p.stat().st_size))
    assert restored(folder, level="size").step == 20
    (folder / "20/default/params/_METADATA").write_bytes(b"?" * (folder / "20/default/params/_METADATA").stat().st_size)
    found = restored(folder, level="size")
    assert found.step == 10 and "Orbax cannot read it" in found.notes[1]


def test_full_level_compares_what_is_on_the_devices(folder):
    body = integrity.read_manifest(folder / "30")
    body["leaves"]["params/blocks/w"]["fingerprint"][1] ^= 1
    (folder / "30/manifest.json").write_bytes(integrity._render(body))
    assert restored(folder, level="hash").step == 30
    found = restored(folder, level="full")
    assert found.step == 20 and "params/blocks/w does not match its fingerprint" in found.notes[0]


def test_nothing_usable_is_refused_with_the_fix(folder):
    for step in (10, 20, 30):
        flip(next(p for p in files_of(folder / f"{step}/default/params/d") if p.stat().st_size))
    with opened(folder) as checkpoints, pytest.raises(UserError, match="start over") as error:
        checkpoints.restore(states.abstract(8))
    assert error.value.exit_code == 78 and "\n" not in str(error.value)
    assert all(f"checkpoint {step} is damaged" in str(error.value) for step in (10, 20, 30))
    assert len(list(folder.iterdir())) == 3


def test_a_lone_folder_without_manifest_is_no_fresh_start(tmp_path):
    (tmp_path / "7").mkdir()
    with opened(tmp_path) as checkpoints, pytest.raises(UserError, match=r"manifest\.json is missing"):
        checkpoints.restore(states.abstract(8))


def test_a_strangers_sizes_are_refused_before_they_are_allocated(folder):
    """The manifest agrees with the model, Orbax's own metadata claims more."""
    stored = {
        "w": ocp.metadata.ArrayMetadata(name="w", directory=None, shape=(8,), sharding=None, dtype=np.dtype("f4"))
    }
    want = {"w": jax.ShapeDtypeStruct((8,), jnp.float32)}
    restore.check_storage(stored, want)
    stored["w"].storage = ocp.metadata.value.StorageMetadata(chunk_shape=(1 << 40,))
    with pytest.raises(integrity.Damaged, match="larger than itself"):
        restore.check_storage(stored, want)
    stored["w"].shape = (1 << 40,)
    with pytest.raises(integrity.Damaged, match="is stored as float32"):
        restore.check_storage(stored, want)


def test_inspect_needs_no_model(folder):
    flip(folder / "20/default/params/_METADATA")
    (folder / "40.partial").mkdir()
    report = json.loads(json.dumps(restore.inspect(folder)))
    assert (report["newest"], report["leftovers"]) == (30, ["40.partial"])
    assert [(s["step"], s["ok"]) for s in report["steps"]] == [(10, True), (20, False), (30, True)]
    assert "_METADATA" in report["steps"][1]["problem"]
    assert report["steps"][2]["mesh"] == {"fsdp": 8} and report["steps"][2]["bytes"] > 50_000
    assert restore.inspect(folder / "nowhere")["newest"] is None


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


@pytest.mark.parametrize("kind", ["Task", "Future", "_GatheringFuture"])
def test_what_fails_after_the_first_failure_is_not_logged(kind, caplog):
    orbax_logs.quiet_orbax()
    for where in ("40.partial/default.orbax-checkpoint-tmp", "elsewhere"):
        logging.getLogger("asyncio").error(f"{kind} exception was never retrieved\nexception=OSError('{where}')")
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["elsewhere"]


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


def plain(step: int):
    """A state that needs no compilation, since each killed process would pay it again."""
    content = np.random.default_rng(step).normal(size=(64, 512)).astype(np.float32)
    return {"w": jax.device_put(content, states.abstract(8).params["emb"].sharding)}


def save_for_ever(checkpoints, committed) -> None:
    """Save step after step; `committed` tells the newest that is known to be whole."""
    with checkpoints:
        step = max(checkpoints.steps(), default=0)
        while True:
            step += 1
            checkpoints.save(step, plain(step))
            if step % 2 == 0:
                checkpoints.wait()
                committed.value = step


def saving(folder: str, asynchronous: bool, committed) -> None:
    save_for_ever(opened(Path(folder), asynchronous=asynchronous, keep=2), committed)


def kill_in_save(folder: Path, trials: int) -> None:
    """Kill a saving process at random moments; after each, nothing committed is lost and nothing half is left."""
    for before, committed in states.kills(saving, str(folder), trials, seed=5):
        with opened(folder) as checkpoints:
            assert [p.name for p in folder.iterdir() if not p.name.isdecimal()] == []
            found = checkpoints.restore(plain(0))
        assert found.notes == [] and found.step >= committed > before
        states.assert_same(found.state, plain(found.step))


def test_kill_9_in_a_save(tmp_path):
    kill_in_save(tmp_path, trials=8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_50_kills_in_a_save(tmp_path):
    kill_in_save(tmp_path, trials=50)


PEER = """
import os, signal, sys, time, jax
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
import pathlib, states
from test_checkpoint import opened
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
    here = Path(__file__)
    env = os.environ | {
        "XLA_FLAGS": xla.flags(4),
        "PYTHONPATH": f"{here.parent}:{here.parents[2]}",
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
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank, heartbeat_timeout_seconds=10)
import pathlib, states
from test_checkpoint import opened
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
