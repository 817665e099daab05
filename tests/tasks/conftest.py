"""A tokenizer with the marks of ChatML, and what renders with it."""

import pytest

from chinchilla_jax.data.controls import add_controls
from chinchilla_jax.tasks.render import Renderer
from chinchilla_jax.tasks.template import CHATML


@pytest.fixture(scope="session")
def tokenizer(tiny_store, tmp_path_factory):
    """A SentencePiece model with the marks of ChatML."""
    return add_controls(tiny_store, list(CHATML.marks), tmp_path_factory.mktemp("marks"))


@pytest.fixture(scope="session")
def chat(tokenizer):
    return Renderer(CHATML, tokenizer)
