"""Bytes that are no UTF-8 text: what the message advises is right, and never makes it worse."""

import gzip
import subprocess

import pyarrow
import pytest

from chinchilla_jax.data import files, text
from chinchilla_jax.errors import UserError
from tests.data.reading import documents

PLAIN = "Jack and Jill\nwent up the hill\n" * 20


def refused(path, data: bytes) -> str:
    """The message about a file, which is the same for its folder."""
    path.write_bytes(data)
    for source in (path, path.parent):
        with pytest.raises(UserError) as refusal:
            list(documents(files.open_path(str(source), "text")))
    return str(refusal.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "utf-32be"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_wide_encodings_are_named_and_the_advice_works(tmp_path, encoding, name):
    data = PLAIN.encode(encoding)
    said = refused(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data)
    command = said.split("`")[1].removesuffix(" > NEW.txt")
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert done.stdout.decode().removeprefix("\ufeff") == PLAIN


def test_the_advice_for_a_zstd_file_unpacks_it(tmp_path):
    path = tmp_path / "a.txt.zst"
    said = refused(path, pyarrow.Codec("zstd").compress(PLAIN.encode("utf-16"), asbytes=True))
    assert f"`zstd -dc {path} | iconv -f utf-16 -t utf-8 > NEW.txt`" in said


def test_marked_utf_16_without_any_nul(tmp_path):
    assert "UTF-16" in refused(tmp_path / "a.txt", ("海风" * 50).encode("utf-16"))


@pytest.mark.parametrize(
    "data, hint",
    [
        (PLAIN.encode() + b"\0" + PLAIN.encode() * 500, "is NUL"),
        ("naïve façade ".encode("latin-1") * 50, "guesses the encoding"),
        ("海风吹过".encode("gb18030") * 50, "guesses the encoding"),
        ("naïve façade ".encode() * 50 + b"\xff.", "a few bytes are damaged"),
        ("naïve".encode() * 50 + "海".encode()[:2], "ends inside a character"),
    ],
    ids=["nul", "one-byte", "gb18030", "damaged", "cut"],
)
def test_other_bytes(tmp_path, data, hint):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError) as refusal:
        list(documents(files.open_path(str(tmp_path / "a.txt"), "text")))
    assert hint in str(refusal.value) and "latin" not in str(refusal.value) and "--skip-broken" in str(refusal.value)


def test_a_whole_file_is_read_as_prepare_reads_it(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfLine one\r\nLine two\r\n")
    assert text.whole(tmp_path / "p.txt") == "Line one\r\nLine two\r\n"
    [document] = documents(files.open_path(str(tmp_path / "p.txt"), "text"))
    assert document.text == text.whole(tmp_path / "p.txt")
