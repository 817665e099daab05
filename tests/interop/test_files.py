"""Checksums as `sha256sum` writes them: what was changed is named, and lists that are none are refused."""

import hashlib

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import files


@pytest.fixture
def folder(tmp_path):
    """Two files and their checksums."""
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(b"a" * 100)
    (tmp_path / "in/b c").write_bytes(b"b")
    files.write_sums(tmp_path)
    return tmp_path


def test_sums_are_those_of_the_files(folder):
    expected = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("a", "in/b c")}
    assert files.read_sums(folder / files.SUMS) == expected == files.hashes(folder, [folder / "a", folder / "in/b c"])
    before = (folder / files.SUMS).read_text()
    files.write_sums(folder)
    assert (folder / files.SUMS).read_text() == before, "the list is not in the list"


def test_other_spellings_of_a_list_are_read(folder):
    """With a star for binary files, with ./ in front, in capitals, and of some of the files alone."""
    digest = files.sha256(folder / "a")
    (folder / files.SUMS).write_text(f"{digest.upper()} *a\n\n{'0' * 64}  ./elsewhere\n")
    assert files.read_sums(folder / files.SUMS) == {"a": digest, "elsewhere": "0" * 64}
    assert files.hashes(folder, [folder / "in/b c"]).keys() == {"in/b c"}


def test_a_changed_file_is_named(folder, tmp_path_factory):
    beside = tmp_path_factory.mktemp("beside") / "blob"
    beside.write_bytes(b"another")
    assert files.hashes(folder, [beside]).keys() == {"blob"}, "one outside of the folder by its name alone"
    (folder / "a").write_bytes(b"a" * 99 + b"b")
    with pytest.raises(UserError, match="/a is damaged: its sha256 is not that of SHA256SUMS"):
        files.hashes(folder, [folder / "a"])


@pytest.mark.parametrize("content", [b"hello\n", b"\xff\xfe", b"0" * 64, b"0" * 63 + b"  a\n"])
def test_what_is_no_list_is_refused(tmp_path, content):
    (tmp_path / files.SUMS).write_bytes(content)
    with pytest.raises(UserError, match="is no list of checksums; get it again or delete it"):
        files.read_sums(tmp_path / files.SUMS)
