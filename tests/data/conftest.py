"""Small corpora, one small store, and a cloud in memory, for all tests of the data room."""

import random
import re
import shutil
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import build, remote
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizer import Tokenizer

WORDS = re.findall(r"\S+", "the sea wind carries old songs over cold stone and bright water 海 风 吹 过 石头 naïve")


def story(seed: int, lines: int = 40) -> str:
    """Some lines of made-up text."""
    draw = random.Random(seed)
    return "\n".join(" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(lines)) + "\n"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder with 30 text files."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(story(number))
    return folder


@pytest.fixture(scope="session")
def made(corpus, tmp_path_factory):
    """The settings of a store made from `corpus`."""
    path = tmp_path_factory.mktemp("store") / "tiny"
    config = DataConfig(sources=(str(corpus),), store=str(path), vocab_size=400, valid_fraction=0.1)
    build.prepare(config, say=lambda line: None, show=False)
    return config


@pytest.fixture
def store(made):
    """The opened store."""
    return TokenStore.open(made.store)


@pytest.fixture(scope="session")
def tokenizer(made):
    """The store's tokenizer."""
    return Tokenizer(f"{made.store}/tokenizer.model")


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the store to damage."""
    return Path(shutil.copytree(made.store, tmp_path / "copy"))


class FakeCloud(MemoryFileSystem):
    """gs:// in memory."""

    protocol = ("gs", "gcs")
    store: dict = {}
    pseudo_dirs = [""]


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """gs:// as an empty file system in memory, and an empty cache."""
    before = dict(_registry)
    for protocol in FakeCloud.protocol:
        fsspec.register_implementation(protocol, FakeCloud, clobber=True)
    FakeCloud.store.clear()
    FakeCloud.pseudo_dirs[:] = [""]
    monkeypatch.setattr(remote, "CACHE", str(tmp_path / "cache"))
    yield FakeCloud()
    _registry.clear()
    _registry.update(before)
