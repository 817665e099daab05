"""Checkpoints under every injury: what is restored is what was saved, or the reason is said."""

import json
import random
import shutil
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.training import best, integrity, packing, restore
from tests import runs
from tests.training import states
from tests.training.states import files_of, flip, opened, restored, truncate


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


def zero_page(path):
    path.write_bytes(bytes(min(4096, path.stat().st_size)) + path.read_bytes()[4096:])


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


def test_a_step_that_was_asked_for_is_put_back_or_no_longer_asked_for(folder):
    """`best.json` asks for it in the name of evaluate, generate and export."""
    flip(next(p for p in files_of(folder / "10/default/params/d") if p.stat().st_size))
    best.write(folder.parent, {"step": 10})
    with pytest.raises(UserError, match=r"damaged.*; put checkpoint 10 back, or delete .*best\.json"):
        restore.newest(folder, states.abstract(8), level="hash", step=10)
    with pytest.raises(UserError, match=r"has no checkpoint 11; it has 10, 20, 30; put checkpoint 11 back$"):
        restore.newest(folder, states.abstract(8), level="hash", step=11)


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


def test_a_run_passes_over_a_damaged_checkpoint(copy, whole_run, tiny_store):
    largest = max((copy / "checkpoints" / "20").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    whole = largest.read_bytes()
    largest.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, said = runs.pretrain(copy, tiny_store)
    assert code == 0 and "warning: checkpoint 20 is damaged" in said and "resumed from step 15, verified" in said
    runs.assert_same_run(copy, whole_run)
