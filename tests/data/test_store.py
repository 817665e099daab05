"""Opening a token store."""

import json
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.data import manifest as manifests
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError


def test_open(store, made):
    assert store.train.tokens.dtype == np.uint16 and store.train.starts.dtype == np.uint64
    assert isinstance(store.train.tokens, np.memmap)
    assert len(store.fingerprint) == 64 and store.fingerprint == TokenStore.open(Path(made.store)).fingerprint


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("file")])
def test_no_store_names_the_command(tmp_path, make):
    make(tmp_path / "s")
    with pytest.raises(UserError, match=r"no token store here; .*--data.store, or make one with"):
        TokenStore.open(tmp_path / "s")


def test_the_command_for_a_missing_store_makes_that_one():
    """`prepare` alone makes data/shakespeare, whichever store was asked for."""
    assert manifests.making("data/shakespeare") == "`python -m chinchilla_jax prepare`"
    assert manifests.making("my store").endswith("prepare --data.sources TEXT --data.store 'my store'`")


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
