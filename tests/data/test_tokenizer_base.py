"""Text out of a stream of ids, and what every kind of tokenizer shares."""

from types import SimpleNamespace

import pytest

from chinchilla_jax.data.tokenizer_base import SPACE, Streamer


@pytest.mark.parametrize("text", ["naïve 海风 👩‍👩‍👧 déjà\n", f"a{SPACE}b"])
def test_streaming_gives_whole_characters_only(tokenizer, text):
    streamer = Streamer(tokenizer)
    given = [streamer.feed([i]) for i in tokenizer.encode(text)]
    assert "".join(given) + streamer.flush() == text
    assert all("\ufffd" not in part for part in given)


def test_streaming_shows_what_never_completes(tokenizer):
    streamer = Streamer(tokenizer)
    assert streamer.feed(tokenizer.encode("👩")[:-1]) == ""
    assert "\ufffd" in streamer.flush()


def test_a_text_that_goes_on_keeps_its_space():
    """A tokenizer that puts a space before a text takes it away at the beginning alone."""
    prefixing = SimpleNamespace(pieces=[b" the", b" sea"], prefixes_space=True)
    assert Streamer(prefixing).feed([0, 1]) == "the sea"
    assert Streamer(prefixing, begins=False).feed([0, 1]) == " the sea"
