"""Stores on remote paths, with a file system in memory in the place of gs://."""

import shutil

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import build, remote
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError

URL = "gs://bucket/stores/tiny"


class FakeCloud(MemoryFileSystem):
    """gs:// in memory."""

    protocol = ("gs", "gcs")
    store: dict = {}
    pseudo_dirs = [""]


@pytest.fixture(autouse=True)
def cloud(tmp_path, monkeypatch):
    """An empty cloud and an empty cache."""
    before = dict(_registry)
    for protocol in FakeCloud.protocol:
        fsspec.register_implementation(protocol, FakeCloud, clobber=True)
    FakeCloud.store.clear()
    FakeCloud.pseudo_dirs[:] = [""]
    monkeypatch.setattr(remote, "CACHE", str(tmp_path / "cache"))
    yield FakeCloud()
    _registry.clear()
    _registry.update(before)


@pytest.fixture
def uploaded(made):
    remote.upload(remote.Path(made.store), URL)


def test_copied_once_and_equal(uploaded, store, monkeypatch):
    opened = TokenStore.open(URL)
    assert opened.fingerprint == store.fingerprint and np.array_equal(opened.train.tokens, store.train.tokens)
    monkeypatch.setattr(shutil, "copyfileobj", lambda *a: pytest.fail("copied again"))
    assert TokenStore.open(URL + "/").path == opened.path


def test_damage_on_the_way_is_noticed_and_not_kept(uploaded, cloud, tmp_path):
    path = next(p for p in cloud.store if p.endswith("train.bin"))
    content = bytearray(cloud.cat(path))
    content[100] ^= 1
    cloud.pipe(path, bytes(content))
    tokens = TokenStore.open(URL).train.tokens
    with pytest.raises(UserError, match=r"train\.bin: damaged"):
        tokens[:10]
    assert not list((tmp_path / "cache").glob("*/blocks/*"))
    path = next(p for p in cloud.store if p.endswith("valid.bin"))
    cloud.pipe(path, bytes(cloud.cat(path)[::-1]))
    for left in (tmp_path / "cache").iterdir():
        shutil.rmtree(left)
    with pytest.raises(UserError, match=r"valid\.bin: damaged"):
        TokenStore.open(URL)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cut_off_copy_is_made_again(uploaded, store):
    path = TokenStore.open(URL).path
    (path / "valid.bin").write_bytes(b"")
    assert TokenStore.open(URL).fingerprint == store.fingerprint


def test_nothing_there():
    with pytest.raises(UserError, match="no token store here"):
        TokenStore.open("gs://bucket/none")


def test_a_missing_package_is_named(monkeypatch):
    def unavailable(*args, **options):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "filesystem", unavailable)
    with pytest.raises(UserError, match="gcsfs"):
        TokenStore.open("s3://bucket/none")


def test_prepare_writes_to_a_remote_store_and_finds_it_again(corpus, store):
    config = DataConfig(sources=(str(corpus),), store=URL, vocab_size=400, valid_fraction=0.1)
    said = []
    build.prepare(config, say=said.append, show=False)
    assert TokenStore.open(URL).fingerprint == store.fingerprint
    build.prepare(config, say=said.append, show=False)
    assert "complete" in said[-1]
