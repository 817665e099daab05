"""Run directories on object storage: neither a kill nor a flipped bit is any worse there than on a disk."""

import json
import random
import shutil
import signal

import pytest
import states
from etils import epath
from test_checkpoint import META, plain, save_for_ever

from chinchilla_jax.commands import cli, supervise
from chinchilla_jax.config import CheckpointConfig
from chinchilla_jax.errors import StorageError, UserError
from chinchilla_jax.training import load, mirror, restore
from chinchilla_jax.training.checkpoint import Checkpoints
from tests import bucket, runs

URL = "gs://bucket/runs/one"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Where the objects of gs:// are."""
    bucket.install(tmp_path, monkeypatch.setattr)
    return tmp_path


def opened(**changes) -> Checkpoints:
    return Checkpoints(epath.Path(URL) / "checkpoints", CheckpointConfig(**changes), meta=META)


def objects(root) -> list[str]:
    """The objects of all checkpoints."""
    folder = root / "bucket/runs/one/checkpoints"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_only_whole_checkpoints_are_seen_and_old_ones_go(root):
    seen = []
    with opened(keep=2) as checkpoints:
        checkpoints.before = lambda: seen.append((restore.step_folders(checkpoints.folder), objects(root)))
        for step in (1, 2, 3):
            checkpoints.save(step, plain(step), wait=True)
        checkpoints.save(3, plain(30), wait=True)  # in the place of an older one
    assert [steps for steps, _ in seen] == [[], [1], [1, 2], [2]], "before its manifest a step is none"
    assert all(f"{step}.partial" in names for step, (_, names) in zip((1, 2, 3, 3), seen))
    assert {name.partition("/")[0] for name in objects(root)} == {"2", "3"}
    found = restore.newest(epath.Path(URL) / "checkpoints", plain(0), level="full")
    states.assert_same(found.state, plain(30))


def test_every_flipped_bit_and_every_missing_object_is_noticed(root):
    folder = epath.Path(URL) / "checkpoints"
    with opened() as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, plain(step))
    draw, there = random.Random(7), [name for name in objects(root) if name.startswith("2/")]
    for number, name in enumerate(there * 3):
        path = root / "bucket/runs/one/checkpoints" / name
        whole = path.read_bytes()
        if not whole:
            continue
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        if number % 3 == 0:
            path.unlink()
        assert "problem" in restore.examine(folder / "2", "hash"), name
        if number % 10 == 0:
            found = restore.newest(folder, plain(0), level="hash")
            assert found.step == 1 and "checkpoint 2 is damaged" in found.notes[0]
            states.assert_same(found.state, plain(1))
        path.write_bytes(whole)
    assert restore.newest(folder, plain(0), level="full").step == 2


def saving(root: str, asynchronous: bool, committed) -> None:
    bucket.install(root)
    save_for_ever(opened(asynchronous=asynchronous, keep=2), committed)


def kill_in_save(root, trials: int) -> None:
    """Kill a saving process at random moments; after each, nothing committed is lost and nothing half is left."""
    for before, committed in states.kills(saving, str(root), trials, seed=6):
        with opened() as checkpoints:
            found = checkpoints.restore(plain(0))
            whole = {str(step) for step in checkpoints.steps()}
        assert found.notes == [] and found.step >= committed > before
        assert {name.partition("/")[0] for name in objects(root)} == whole
        states.assert_same(found.state, plain(found.step))


def test_kill_9_in_a_save(root):
    kill_in_save(root, trials=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_50_kills_in_a_save(root):
    kill_in_save(root, trials=50)


INSTALL = """
from tests import bucket
from chinchilla_jax import locks
bucket.install({root!r})
locks.BEAT, locks.EXPIRY, locks.SETTLE = 0.2, 2.0, 0.2
"""


def test_a_killed_run_goes_on_and_other_commands_take_it(whole_run, copy, tiny_store, root, cache):
    wrap, run_dir = INSTALL.format(root=str(root)), root / "bucket/runs/one"
    killed = runs.start_pretrain(URL, tiny_store, devices=8, cache=cache, wrap=wrap + runs.KILL)
    runs.finish(killed, -signal.SIGKILL)
    assert runs.saved(run_dir) == [5, 10] and max(runs.losses(run_dir)) >= 10
    said = runs.finish(runs.start_pretrain(URL, tiny_store, devices=8, cache=cache, wrap=wrap))
    assert "took over gs://bucket/runs/one from process" in said and "resumed from step 10, verified\n" in said
    assert f"wrote {URL}\n" in said and f"--run-dir {URL}" in said
    runs.assert_same_run(run_dir, whole_run)
    assert runs.leaves(run_dir, 15) == runs.leaves(whole_run, 15)
    assert not (run_dir / mirror.LEASE).exists()
    with runs.caching(cache):
        found = runs.ask("evaluate", **{"run-dir": URL})
        expected = runs.ask("evaluate", **{"run-dir": copy})
    assert found["loss_nats_per_token"] == expected["loss_nats_per_token"]
    assert found["wrote"] == [f"{URL}/evaluation.json"] and (run_dir / "evaluation.json").exists()


def test_runs_on_object_storage_are_written_and_read_as_wholes(whole_run, root, cache):
    """Imported and packed ones, and where the time went; the temporary folders between are named nowhere."""
    there, imported = root / "bucket/runs", {"run-dir": "gs://bucket/runs/imported"}
    shutil.copytree(whole_run, there / "one")
    with runs.caching(cache):
        runs.ask("export", **{"run-dir": URL, "out": root / "hf"})
        assert runs.ask("import", str(root / "hf"), **imported)["wrote"] == [imported["run-dir"]]
        code, said = runs.call("import", str(root / "hf"), **imported)
        assert code == 78 and "gs://bucket/runs/imported is there already" in said
        assert restore.newest_meta(epath.Path(imported["run-dir"]) / "checkpoints")["tokenizer"]
        runs.ask("export", **{"run-dir": URL, "format": "sparse", "out": there / "packed"})
        words = {"prompt": "the", "max-new-tokens": 2, "temperature": 0}
        whole, packed = (
            runs.ask("generate", **words, **{"run-dir": f"gs://bucket/runs/{n}"}) for n in ("one", "packed")
        )
        assert whole["completions"] == packed["completions"]
    small = [path for path in there.rglob("*") if path.is_file() and "checkpoints" not in path.parts]
    assert not [path for path in small if b"chinchilla_jax-" in path.read_bytes()]
    assert json.loads((there / "packed/origin.json").read_text())["source"] == URL
    assert supervise.spent(URL)["goodput"]


def test_a_base_is_found_beside_a_run_that_was_moved_with_it(root):
    (root / "bucket/runs/base").mkdir(parents=True)
    (root / "bucket/runs/base/config.json").write_text("{}")
    with mirror.standing_for(URL) as standing:
        assert mirror.named(str(load.find_base("gone/base", standing.folder))) == "gs://bucket/runs/base"
        with pytest.raises(UserError, match="the base gone/other of"):
            load.find_base("gone/other", standing.folder)


@pytest.mark.parametrize("command", ["export", "merge", "prune", "report", "plan"])
def test_what_is_written_only_locally_says_so(root, command):
    code, said = runs.call(command, "--out", "gs://bucket/out", **{"run-dir": URL})
    assert code == 78 and said.count("\n") == 1 and "--out gs://bucket/out" in said and "local path" in said


def test_figures_that_cannot_be_kept_are_printed_only(root, monkeypatch, capsys):
    """As in a local folder that may only be read; what has to write there says so before its work."""
    kept = root / "bucket/runs/one/evaluation.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with monkeypatch.context() as patch, mirror.standing_for(URL) as standing:
        was = bucket.Bucket.open
        patch.setattr(bucket.Bucket, "open", lambda self, path, mode: was(self, path, refused(mode)))
        assert cli.keep(standing.folder / "evaluation.json", {"loss": 1}) == []
        with pytest.raises(StorageError, match=f"{URL} cannot be written .*denied"):
            cli.writable(standing.folder, "--run-dir")
    said = capsys.readouterr().err
    assert f"warning: {URL}/evaluation.json could not be written (Permission denied)" in said
    assert kept.read_text() == "{}"
    with mirror.standing_for(URL) as standing:
        assert cli.keep(standing.folder / "evaluation.json", {"loss": 1})
        cli.writable(standing.folder, "--run-dir")
        assert json.loads(kept.read_text()) == {"loss": 1}, "sent at once"
    assert [path.name for path in kept.parent.iterdir()] == ["evaluation.json"]


def refused(mode: str) -> str:
    """`mode`, which must not write."""
    if "w" in mode:
        raise PermissionError(13, "Permission denied")
    return mode


def test_an_error_of_the_service_is_a_failed_save(root, monkeypatch):
    class HttpError(Exception):
        """As gcsfs raises."""

    with opened() as checkpoints:
        checkpoints.save(1, plain(1), wait=True)
        with monkeypatch.context() as patch, pytest.raises(StorageError, match="HttpError: 503"):
            patch.setattr(bucket.Bucket, "open", lambda *_: (_ for _ in ()).throw(HttpError(503)))
            checkpoints.save(2, plain(2))
        checkpoints.save(3, plain(3))
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3]


def test_what_cannot_be_reached_is_one_line(root, monkeypatch):
    code, said = runs.call("generate", **{"run-dir": "s3://bucket/run"})
    assert code == 78 and "local folders or on gs://" in said
    code, said = runs.call("sweep", **{"run-dir": URL})
    assert code == 78 and "takes local folders only" in said
    code, said = runs.call("generate", **{"run-dir": URL})
    assert code == 78 and f"{URL} holds no run" in said and "chinchilla_jax-" not in said
    monkeypatch.setattr(bucket.Bucket, "exists", lambda *_: (_ for _ in ()).throw(TimeoutError("no route")))
    code, said = runs.call("generate", **{"run-dir": URL})
    assert code == 74 and f"{URL} cannot be reached (TimeoutError: no route)" in said
    with pytest.raises(UserError), mirror.standing_for("az://x"):
        pass


def test_a_bucket_that_is_not_there_is_no_file_that_was_renamed(root, monkeypatch):
    with (
        pytest.raises(StorageError, match=f"{URL} cannot be written .*no bucket"),
        mirror.standing_for(URL) as standing,
    ):
        (standing.folder / "file").write_text("1")
        monkeypatch.setattr(bucket.Bucket, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError("no bucket")))


def test_a_local_copy_has_the_name_of_its_run_and_goes(root):
    with mirror.standing_for(URL) as standing:
        (standing.folder / "new").mkdir()
        (standing.folder / "new" / "file").write_text("1")
        assert standing.folder.name == "one" and standing.named({"wrote": [f"{standing.folder}/new"]}) == {
            "wrote": [f"{URL}/new"]
        }
    assert not standing.scratch.exists() and (root / "bucket/runs/one/new/file").read_text() == "1"
