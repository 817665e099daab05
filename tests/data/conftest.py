"""Small corpora and one small store for all tests of the data room."""

import random
import re

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import build
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
