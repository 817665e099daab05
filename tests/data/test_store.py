"""Opening a token store."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.commands import config_files, flags, prepare
from chinchilla_jax.data import manifest as manifests
from chinchilla_jax.data import split as splits
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.disk import checksum
from chinchilla_jax.errors import UserError


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the store to damage."""
    return Path(shutil.copytree(made.store, tmp_path / "copy"))


def test_open(store, made):
    assert store.train.tokens.dtype == np.uint16 and store.train.starts.dtype == np.uint64
    assert isinstance(store.train.tokens, np.memmap)
    assert len(store.fingerprint) == 64 and store.fingerprint == TokenStore.open(Path(made.store)).fingerprint


def test_the_type_grows_with_the_vocabulary():
    assert [splits.token_dtype(n).str for n in (300, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("file")])
def test_no_store_names_the_command(tmp_path, make):
    make(tmp_path / "s")
    with pytest.raises(UserError, match=r"no token store here; .*--data.store, or make one with"):
        TokenStore.open(tmp_path / "s")


@pytest.mark.parametrize("name", ["train.bin", "valid.bin", "train.idx.npy", "valid.txt", "tokenizer.model"])
def test_damage_names_the_file(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: damaged.*prepare --data.sources .* --force"):
        TokenStore.open(folder)
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{name}: [\d,]+ bytes, expected"):
        TokenStore.open(folder, verify=False)
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing"):
        TokenStore.open(folder)


def rewrite(folder: Path, change) -> None:
    """Change the manifest and seal it again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest["xxh3_128"] = manifests.seal(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_every_flipped_bit_of_the_manifest_is_noticed_or_harmless(folder):
    content = (folder / "manifest.json").read_bytes()
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        (folder / "manifest.json").write_bytes(damaged)
        try:
            found = TokenStore.open(folder).manifest
        except UserError as error:
            assert "damaged" in str(error) or "version" in str(error)
        else:
            assert found == json.loads(content)  # white space between the entries


@pytest.mark.parametrize("change", [{"version": 99}, {"version": None}, {"files": {}}, {"splits": []}])
def test_a_strange_manifest_is_refused(folder, change):
    rewrite(folder, lambda manifest: manifest.update(change))
    with pytest.raises(UserError, match=r"prepare --data\.sources TEXT .*--force"):
        TokenStore.open(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b"])
def test_a_manifest_cannot_name_files_elsewhere(folder, name):
    rewrite(folder, lambda manifest: manifest["files"].update({name: {"bytes": 1, "xxh3_128": ""}}))
    with pytest.raises(UserError, match="damaged"):
        TokenStore.open(folder)


def test_an_index_of_objects_is_refused(folder):
    np.save(folder / "train.idx.npy", np.array([{}], object), allow_pickle=True)
    path = folder / "train.idx.npy"
    entry = {"bytes": path.stat().st_size, "xxh3_128": checksum(path)}
    rewrite(folder, lambda manifest: manifest["files"].update({"train.idx.npy": entry}))
    with pytest.raises(UserError, match="damaged"):
        TokenStore.open(folder)


def test_the_advice_for_a_damaged_store_makes_the_same_one(folder, made):
    """Without its sources the advised command would put another text in its place."""
    (folder / "train.bin").unlink()
    with pytest.raises(UserError) as refusal:
        TokenStore.open(folder)
    command = shlex.split(str(refusal.value).split("`")[1])
    parser = flags.parser_of("prepare", "", prepare)
    config = config_files.resolve(parser.parse(command[4:]))
    told = {name: getattr(config.data, name) for name in ("sources", "store", "vocab_size", "valid_fraction")}
    assert told == {name: getattr(made, name) for name in told} | {"store": str(folder)}


def first_version(folder: Path) -> Path:
    """The store as the first version wrote it: no blocks, no shards, no sources of tokens."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifests.SPLITS:
        for key in ("shards", "sources"):
            del manifest["splits"][name][key]
        (folder / f"{name}.blocks.npy").unlink()
        del manifest["files"][f"{name}.blocks.npy"]
    manifest |= {"version": 1, "config": {}, "xxh3_128": ""}
    manifest["xxh3_128"] = manifests.seal(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_store_of_the_first_version_is_read(folder, store):
    old = TokenStore.open(first_version(folder))
    for name in manifests.SPLITS:
        ours, theirs = getattr(old, name), getattr(store, name)
        assert (ours.tokens == theirs.tokens).all() and (ours.starts == theirs.starts).all()
        assert ours.sources == () and ours.bytes == theirs.bytes
    with pytest.raises(UserError, match="prepare it again"):
        old.mixed((0.5, 0.5))
