"""How a save becomes a checkpoint: on object storage, by a mark and the manifest; on a disk, by one rename."""

import random

import pytest
from etils import epath

from chinchilla_jax.config import CheckpointConfig
from chinchilla_jax.errors import StorageError
from chinchilla_jax.training import commits, restore
from chinchilla_jax.training.checkpoint import Checkpoints
from tests import bucket
from tests.training import states
from tests.training.states import META, plain, save_for_ever

URL = "gs://bucket/runs/one"


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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_50_kills_in_a_save(root):
    """At random moments; after each, nothing committed is lost and nothing half is left."""
    for before, committed in states.kills(saving, str(root), trials=50, seed=6):
        with opened() as checkpoints:
            found = checkpoints.restore(plain(0))
            whole = {str(step) for step in checkpoints.steps()}
        assert found.notes == [] and found.step >= committed > before
        assert {name.partition("/")[0] for name in objects(root)} == whole
        states.assert_same(found.state, plain(found.step))


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


# By renaming


@pytest.fixture
def renamed(tmp_path):
    """Commits on a disk, with a checkpoint of step 1."""
    found = commits.Renamed(tmp_path)
    save(found, 1, "one")
    return found


def save(found: commits.Renamed, step: int, text: str) -> None:
    found.begin(step)
    (found.place(step) / "data").write_text(text)
    found.commit(step)


def there(found: commits.Renamed) -> dict[str, str]:
    return {path.name: (path / "data").read_text() for path in sorted(found.folder.iterdir())}


def test_a_save_takes_the_place_of_an_older_one_and_a_checkpoint_is_deleted(renamed):
    save(renamed, 2, "two")
    save(renamed, 1, "one again")
    assert there(renamed) == {"1": "one again", "2": "two"} and commits.leftovers(renamed.folder) == []
    renamed.discard(2)
    assert there(renamed) == {"1": "one again"}


@pytest.mark.parametrize("at", range(1, 6))
def test_a_kill_between_any_two_calls_leaves_whole_checkpoints_alone(renamed, monkeypatch, at):
    """Of replacing step 1 and deleting step 2: at the n-th change of the folder nothing more happens."""
    save(renamed, 2, "two")
    left, rename, rmtree = [at], commits.os.rename, commits.shutil.rmtree

    class Killed(BaseException):
        pass

    def counted(change):
        def run(path, *rest, **how):
            if not commits.Path(path).exists():
                return None
            left[0] -= 1
            if left[0] <= 0:
                raise Killed
            return change(path, *rest, **how)

        return run

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(commits.os, "rename", counted(rename))
        patch.setattr(commits.shutil, "rmtree", counted(rmtree))
        save(renamed, 1, "one again")
        renamed.discard(2)
    whole = {name: text for name, text in there(renamed).items() if name.isdecimal()}
    assert whole in ({"1": "one", "2": "two"}, {"2": "two"}, {"1": "one again", "2": "two"}, {"1": "one again"})
    renamed.clear(at_start=True)
    assert there(renamed) == whole


def test_folders_can_be_renamed_on_a_disk_and_the_probe_leaves_nothing(tmp_path, monkeypatch):
    assert commits.renames(tmp_path)
    monkeypatch.setattr(commits.os, "rename", lambda *_: (_ for _ in ()).throw(OSError("not on a mounted bucket")))
    assert not commits.renames(tmp_path) and not list(tmp_path.iterdir())


def test_object_storage_is_never_asked_to_rename(root):
    assert not commits.renames(epath.Path(URL))
