"""Files and ranges of them, here and in a cloud in memory alike."""

import io
import os

import numpy as np
import pytest

from chinchilla_jax.data import fs


@pytest.fixture(params=["here", "cloud"])
def root(request, tmp_path):
    """A folder that is not there yet."""
    if request.param == "here":
        return str(tmp_path / "top")
    request.getfixturevalue("cloud")
    return "gs://bucket/top"


def test_what_is_written_is_read_in_ranges(root):
    path = fs.join(root, "a", "b.bin")
    assert not fs.exists(path) and fs.names(fs.join(root, "a")) == set()
    fs.write(path, memoryview(b"0123456789"))
    assert [fs.read(path), fs.read(path, 3), fs.read(path, 3, 4)] == [b"0123456789", b"3456789", b"3456"]
    assert [fs.read(path, 8, 5), fs.read(path, 20, 5), fs.read(path, 20)] == [b"89", b"", b""], "fewer at its end"
    fs.write(path, b"new", sync=True)
    assert fs.read(path) == b"new" and fs.size(path) == 3 and fs.opened(path).read() == b"new"
    assert fs.names(fs.join(root, "a")) == {"b.bin"} and fs.located(path).name == "b.bin"
    fs.remove(fs.join(root, "none"))
    fs.remove(path)
    fs.write(path, b"again")
    fs.remove(root)
    assert not fs.exists(path) and not fs.exists(root)


def test_a_file_is_there_whole_or_not_at_all(root):
    path = fs.join(root, "a.bin")
    with fs.writing(path) as file:
        file.write(b"one")
        file.write(b"two")
    assert fs.read(path) == b"onetwo" and fs.names(root) == {"a.bin"}


def test_pieces_of_a_file_that_fails_are_not_there(root):
    path = fs.join(root, "a")
    for before in (set(), {"a"}):
        with pytest.raises(ValueError), fs.writing(path) as file:
            file.write(b"half")
            raise ValueError
        assert fs.names(root) == before
        fs.write(path, b"old")
    assert fs.read(path) == b"old"


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = str(tmp_path / "a")
    fs.write(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        fs.write(path, b"new", sync=True)
    assert os.listdir(tmp_path) == ["a"] and fs.read(path) == b"old"


def test_a_read_that_the_kernel_cuts_short_goes_on(tmp_path, monkeypatch):
    """It gives 2 GiB a call at most."""
    content, pread = bytes(range(250)), os.pread
    fs.write(str(tmp_path / "a"), content)
    monkeypatch.setattr(os, "pread", lambda number, size, start: pread(number, min(size, 7), start))
    assert fs.read(str(tmp_path / "a")) == content and fs.read(str(tmp_path / "a"), 3, 30) == content[3:33]


def test_a_listing_changes_with_the_files(cloud):
    for name in ("b.txt", "a.txt", "in/c.txt", ".hidden", "_SUCCESS"):
        cloud.pipe(f"gs://bucket/top/{name}", b"text")
    found = fs.listing("gs://bucket/top")
    assert [url.removeprefix("gs://bucket/top/") for url in found] == ["a.txt", "b.txt", "in/c.txt"]
    assert list(fs.listing("gs://bucket/top/*.txt")) == list(found)[:2]
    cloud.pipe("gs://bucket/top/a.txt", b"longer text")
    assert [url for url, state in fs.listing("gs://bucket/top").items() if state != found[url]] == [next(iter(found))]
    with pytest.raises(FileNotFoundError):
        fs.listing("gs://bucket/none")


def test_an_array_as_a_file():
    array = np.arange(7, dtype="<u8")
    found = np.load(io.BytesIO(fs.npy(array)), allow_pickle=False)
    assert found.dtype == array.dtype and (found == array).all()
