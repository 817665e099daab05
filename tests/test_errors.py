"""One line for the user, one exit code for the scheduler."""

import pytest

from chinchilla_jax import errors


def test_every_kind_of_end_has_a_code_of_its_own():
    """Those of sysexits.h where there is one; supervise tells by them what is worth another attempt."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert codes == {"UserError": 78, "StorageError": 74, "Preempted": 75, "PeerLost": 69, "Diverged": 77}
    assert all(issubclass(kind, errors.UserError) for kind in kinds)


@pytest.mark.parametrize("text, line", [
    ("one\n  two\tthree ", "one two three"), ("a\x1b[2J\x00b", "a\\x1b[2J\\x00b"), ("海 é", "海 é"),
    ("\u200b\udce9", "\\u200b\\udce9"), ("", ""),
])  # fmt: skip
def test_a_line_is_printable_whatever_it_is_made_of(text, line):
    assert errors.one_line(text) == line and errors.one_line(text).isprintable()


def test_a_long_line_loses_its_middle():
    said = errors.one_line("a" * 3000 + "b" * 3000)
    assert said == "a" * 1000 + " ... " + "b" * 1000 and errors.one_line("x" * 2000) == "x" * 2000
    assert errors.one_line("abcdefgh", most=4) == "ab ... gh"
