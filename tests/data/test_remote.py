"""Stores on remote paths, with a file system in memory in the place of gs://."""

import dataclasses
import json
import shutil

import fsspec
import numpy as np
import pytest

from chinchilla_jax.commands import plan
from chinchilla_jax.config import DataConfig, TrainConfig
from chinchilla_jax.data import build, remote
from chinchilla_jax.data.batches import gather, of_text
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError
from tests.data.conftest import story
from tests.data.test_store import first_version

URL = "gs://bucket/stores/tiny"
pytestmark = pytest.mark.usefixtures("cloud")


@pytest.fixture
def uploaded(made, cloud):
    remote.upload(remote.Path(made.store), URL)


def test_copied_once_and_equal(uploaded, store, monkeypatch):
    opened = TokenStore.open(URL)
    assert opened.fingerprint == store.fingerprint and np.array_equal(opened.train.tokens, store.train.tokens)
    assert plan.manifest_of(URL) == store.manifest == plan.manifest_of(str(store.path)), "`plan` counts its tokens"
    assert plan.manifest_of("gs://bucket/none") == {}
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


def test_a_scheme_that_nobody_knows_is_one_line(corpus):
    """Of a store, which is reached by one library, as of a source, which is reached by another."""
    for config in (DataConfig(sources=(str(corpus),), store="foo://x"), DataConfig(sources=("foo://x",), store="s")):
        with pytest.raises(UserError, match="foo://x cannot be reached: foo:// is not known here; use gs://, s3://"):
            build.prepare(config, say=print, show=False)


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


@pytest.fixture(scope="module")
def sharded(corpus, tmp_path_factory):
    """A store of many small shards of two sources, and its settings."""
    folder = tmp_path_factory.mktemp("sharded")
    for name in "ab":
        lines = [f'{{"text": {json.dumps(story(n, 60))}}}' for n in range(400 if name == "a" else 100)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    config = DataConfig(
        sources=(str(folder / "a.jsonl"), str(folder / "b.jsonl")), store=str(folder / "s"), vocab_size=300,
        deduplicate=False, shard_mb=1,
    )  # fmt: skip
    build.prepare(config, say=lambda line: None, show=False)
    return config


def test_a_sharded_store_reads_like_one_file(sharded, tmp_path):
    one = dataclasses.replace(sharded, shard_mb=100, store=str(tmp_path / "one"))
    build.prepare(one, say=lambda line: None, show=False)
    many, whole = TokenStore.open(sharded.store), TokenStore.open(one.store)
    assert len(many.manifest["splits"]["train"]["shards"]) > 1 and many.train.sources == whole.train.sources
    assert np.array_equal(many.train.tokens, whole.train.tokens)
    assert np.array_equal(many.train.starts, whole.train.starts) and many.train.tokens[-1] == whole.train.tokens[-1]
    rows = np.arange(0, len(whole.train.tokens), 777)
    for name, value in vars(gather(many.train, rows, 64)).items():
        assert value is None or (value == getattr(gather(whole.train, rows, 64), name)).all(), name


@pytest.mark.parametrize("weights", [(), (0.7, 0.3)])
def test_a_host_fetches_what_its_rows_touch_and_trains_on_the_same(sharded, weights):
    remote.upload(remote.Path(sharded.store), URL)
    train = TrainConfig(batch_size=16, seq_len=64, steps=1)
    here, there = (of_text(TokenStore.open(path).mixed(weights), train) for path in (sharded.store, URL))
    split = there.windows.split
    steps = len(split.tokens) // (16 * 64) + 1
    for step in range(steps):
        mine = there.at(step, slice(2, 4))  # of 8 hosts the second
        expected = here.at(step, slice(2, 4))
        for name, value in vars(expected).items():
            assert value is None or (getattr(mine, name) == value).all(), (step, name)
    size = split.tokens.dtype.itemsize * len(split.tokens)
    assert 0.9 / 8 < split.tokens.fetched / size < 1.3 / 8
    before = split.tokens.fetched
    again = of_text(TokenStore.open(URL), train).windows.split.tokens
    np.asarray(again[:])
    assert again.fetched < size - before + 10 * 4096  # what lies in the cache is not fetched again


def test_the_cache_is_bounded_and_a_shard_that_disappears_is_one_line(sharded, cloud, tmp_path, monkeypatch):
    remote.upload(remote.Path(sharded.store), URL)
    tokens = remote.open_parts(URL, limit=20_000)[2]["train"].tokens
    monkeypatch.setattr("chinchilla_jax.data.streams.MEMORY", 0)
    for start in range(0, len(tokens), 5000):
        tokens[start : start + 10]
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*/blocks/*")) <= 20_000
    cloud.rm(next(p for p in cloud.store if "train-00001" in p and p.endswith(".bin")))
    with pytest.raises(UserError, match=r"train-00001-of-.*cannot be read"):
        np.asarray(tokens)


def test_a_host_of_another_count_sees_its_part_of_the_same_batch(sharded):
    batches = of_text(TokenStore.open(sharded.store).mixed((0.7, 0.3)), TrainConfig(batch_size=16, seq_len=64))
    whole = batches.at(5).tokens
    for hosts in (1, 2, 4):
        size = 16 // hosts
        parts = [batches.at(5, slice(h * size, (h + 1) * size)).tokens for h in range(hosts)]
        assert (np.concatenate(parts) == whole).all()


def test_a_remote_store_of_the_first_version_is_copied_whole(made, store, tmp_path):
    remote.upload(first_version(remote.Path(shutil.copytree(made.store, tmp_path / "old"))), URL)
    opened = TokenStore.open(URL)
    assert isinstance(opened.train.tokens, np.memmap) and (opened.train.tokens == store.train.tokens).all()
