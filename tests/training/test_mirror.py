"""Run directories on object storage: goes on after a kill, is read and written as a whole, says what it cannot."""

import json
import shutil
import signal

import pytest
from etils import epath

from chinchilla_jax.commands import cli, supervise
from chinchilla_jax.errors import StorageError, UserError
from chinchilla_jax.training import mirror, restore
from tests import bucket, runs

pytestmark = pytest.mark.usefixtures("compiled_once")
URL = "gs://bucket/runs/one"


INSTALL = """
from tests import bucket
from chinchilla_jax import locks
bucket.install({root!r})
locks.BEAT, locks.EXPIRY, locks.SETTLE = 0.2, 2.0, 0.2
"""


def test_a_killed_run_goes_on_and_other_commands_take_it(whole_run, copy, tiny_store, root):
    wrap, run_dir = INSTALL.format(root=str(root)), root / "bucket/runs/one"
    killed = runs.start_pretrain(URL, tiny_store, devices=8, wrap=wrap + runs.KILL)
    runs.finish(killed, -signal.SIGKILL)
    assert runs.saved(run_dir) == [5, 10] and max(runs.losses(run_dir)) >= 10
    said = runs.finish(runs.start_pretrain(URL, tiny_store, devices=8, wrap=wrap))
    assert "took over gs://bucket/runs/one from process" in said and "resumed from step 10, verified\n" in said
    assert f"wrote {URL}\n" in said and f"--run-dir {URL}" in said
    runs.assert_same_run(run_dir, whole_run)
    assert runs.leaves(run_dir, 15) == runs.leaves(whole_run, 15)
    assert not (run_dir / mirror.LEASE).exists()
    found = runs.ask("evaluate", **{"run-dir": URL})
    expected = runs.ask("evaluate", **{"run-dir": copy})
    assert found["loss_nats_per_token"] == expected["loss_nats_per_token"]
    assert found["wrote"] == [f"{URL}/evaluation.json"] and (run_dir / "evaluation.json").exists()


def test_runs_on_object_storage_are_written_and_read_as_wholes(whole_run, root):
    """Imported and packed ones, and where the time went; the temporary folders between are named nowhere."""
    there, imported = root / "bucket/runs", {"run-dir": "gs://bucket/runs/imported"}
    shutil.copytree(whole_run, there / "one")
    runs.ask("export", **{"run-dir": URL, "out": root / "hf"})
    assert runs.ask("import", str(root / "hf"), **imported)["wrote"] == [imported["run-dir"]]
    code, said = runs.call("import", str(root / "hf"), **imported)
    assert code == 78 and "gs://bucket/runs/imported is there already" in said
    assert restore.newest_meta(epath.Path(imported["run-dir"]) / "checkpoints")["tokenizer"]
    runs.ask("export", **{"run-dir": URL, "format": "sparse", "out": there / "packed"})
    words = {"prompt": "the", "max-new-tokens": 2, "temperature": 0}
    whole, packed = (runs.ask("generate", **words, **{"run-dir": f"gs://bucket/runs/{n}"}) for n in ("one", "packed"))
    assert whole["completions"] == packed["completions"]
    small = [path for path in there.rglob("*") if path.is_file() and "checkpoints" not in path.parts]
    assert not [path for path in small if b"chinchilla_jax-" in path.read_bytes()]
    assert json.loads((there / "packed/origin.json").read_text())["source"] == URL
    assert supervise.spent(URL)["goodput"]


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
