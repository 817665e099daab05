"""Repairs of a text, each by examples."""

import pytest

from chinchilla_jax.data.filters import cleaning


@pytest.mark.parametrize("before, after", [
    ("a\r\nb\rc\u2028d", "a\nb\nc\nd"), ("\ufeffa\x00b\x07c\u200bd\te\n", "abcd\te\n"), ("naïve\n", "naïve\n"),
])  # fmt: skip
def test_controls(before, after):
    assert cleaning.controls(before) == after and cleaning.controls(after) == after


@pytest.mark.parametrize("text", ["café", "\u201cquoted\u201d \u2013 it\u2019s", "海风", "Ünïcödé ½", "naïve"])
def test_text_read_as_windows_1252_comes_back(text):
    broken = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in text.encode())
    assert cleaning.encoding(broken) == text and cleaning.encoding(text) == text


@pytest.mark.parametrize("text", ["Ã la carte", "Â", "10 Å 5", "ÉCOLE", "Ñandú", "plain"])
def test_what_only_looks_like_it_stays(text):
    assert cleaning.encoding(text) == text


@pytest.mark.parametrize("before, after", [
    ("<p class='x'>one &amp; two</p><!-- no --><br/>", "one & two"), ("a < b and c > d", "a < b and c > d"),
    ("<script>var x = '<p>';</script>text&nbsp;&#233;", "text\u00a0é"), ("AT&T; &bogus", "AT&T; &bogus"),
    ("if (x<3 && y>z)", "if (x<3 && y>z)"),
])  # fmt: skip
def test_markup(before, after):
    assert cleaning.markup(before) == after
