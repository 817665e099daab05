"""Blocks that train the tokenizer, and the tail of a single document."""

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import build
from chinchilla_jax.data.stages import sampling
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError
from tests.data.conftest import story


@pytest.mark.parametrize("size", [1, 50, 300, 1000])
def test_a_tail_has_text_on_both_sides(size):
    text = b"a line of text\n" * 100 + b"\n" * 500
    head, end = sampling.cut_tail(text, size)
    assert text[:head].strip() and text[head:end].strip() and text[:head].endswith(b"\n")
    assert end == (1500 if size < 500 else len(text))


def test_a_tail_of_nothing_is_refused():
    with pytest.raises(UserError, match="1 bytes of text"):
        sampling.cut_tail(b" x \n", 1)


def test_a_blank_end_is_not_what_is_held_out(tmp_path):
    text = story(1, lines=400)
    (tmp_path / "a.txt").write_text(text + "\n" * 5000)
    config = DataConfig(sources=(str(tmp_path / "a.txt"),), store=str(tmp_path / "s"), vocab_size=300)
    build.prepare(config, lambda line: None, show=False)
    held = TokenStore.open(tmp_path / "s").valid_text.read_text()
    assert held.strip() and text.endswith(held)
