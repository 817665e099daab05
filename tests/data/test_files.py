"""Text files, .jsonl files and folders of them."""

import gzip
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chinchilla_jax.data import files, fs
from chinchilla_jax.errors import UserError
from tests.data.reading import documents


def read(path, field="text", skip_broken=False):
    """All texts of a source."""
    return [document.text for document in documents(files.open_path(str(path), field, skip_broken))]


@pytest.mark.parametrize("text", ["plain\n", "a\r\nb\r\n", "海风\n", "no end", "\n\n  lead", "\u2581tail"])
def test_a_file_is_a_document_as_it_is(tmp_path, text):
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read(tmp_path / "a.txt") == [text]


def test_a_byte_order_mark_goes(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "hi"}\n')
    assert read(tmp_path) == ["hello", "hi"]


def test_gzip_of_both(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("海风".encode()))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "hi"}\n{"text": "you"}', mtime=0))
    assert read(tmp_path) == ["海风", "hi", "you"]


@pytest.mark.parametrize("mark", ["\n\n", "\r\n\r\n", "\n", " ", "海"])
def test_a_large_file_is_cut_and_nothing_lost(tmp_path, monkeypatch, mark):
    monkeypatch.setattr(files, "PIECE", 1000)
    text = mark.join("word" * (1 + n % 9) for n in range(2000))
    (tmp_path / "a.txt").write_text(text, newline="")
    found = read(tmp_path / "a.txt")
    assert "".join(found) == text
    assert all(len(piece.encode()) <= 1000 for piece in found)
    if mark.endswith("\n"):
        assert all(piece.endswith(mark) for piece in found[:-1])


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_cut_is_between_characters(text):
    data = text.encode()
    for end in range(4, len(data) + 1):
        place = files.cut(data[:end])
        assert 0 <= place <= end
        data[:place].decode()


def test_a_folder_of_code(tmp_path):
    for name in ("src/main.py", "src/lib.rs", "README.md", "Makefile", "web/a.html", "data.toml", "notes.unknown"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in (".git/config", ".hidden", "src/.env"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("secret")
    (tmp_path / "image.png").write_bytes(b"png")
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "data.pkl.gz").write_bytes(gzip.compress(bytes(range(1, 200))))
    source = files.open_path(str(tmp_path), "text")
    assert [d.text for d in documents(source)] == [
        "Makefile", "README.md", "data.toml", "notes.unknown", "src/lib.rs", "src/main.py", "web/a.html",
    ]  # fmt: skip
    assert source.skipped == Counter(hidden=3, binary=3, broken=0)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no text files in this folder"):
        files.open_path(str(tmp_path), "text")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="skipped 1 binary"):
        files.open_path(str(tmp_path), "text")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"ok \xff\xfe", r"a\.txt: byte 3 is not UTF-8; .*--skip-broken"),
        ("a.txt", b"\xef\xbb\xbfok \xff", r"byte 6 is"),
        ("a.txt", b"cut \xe6\xb5", r"byte 4 is"),
        ("a.jsonl", b'{"text": "a"}\nnonsense\n', r"a\.jsonl:2: not JSON"),
        (
            "a.jsonl",
            b'{"body": "a", "id": 1}\n',
            r"a\.jsonl:1: no field 'text' \(the record has: body, id\); .*--data\.field",
        ),
        ("a.jsonl", b'{"text": 3}\n', "is not a string"),
        ("a.jsonl", b"[1]\n", r"the record has: list"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "lone surrogate"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "byte 24 is not UTF-8"),
        ("a.txt.gz", b"no gzip", "damaged gzip"),
        ("a.txt.gz", gzip.compress(b"hello" * 100, mtime=0)[:-12], "damaged gzip"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_broken_bytes_of_a_later_piece_are_counted_from_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 100)
    (tmp_path / "a.txt").write_bytes(b"line\n" * 100 + b"\xff")
    with pytest.raises(UserError, match="byte 500 is"):
        read(tmp_path / "a.txt")


def test_skipping_leaves_out_lines_and_files_and_counts(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\nnonsense\n{"text": "b"}\n{}\n')
    (tmp_path / "b.txt").write_bytes(b"\xff")
    (tmp_path / "c.txt").write_text("c")
    source = files.open_path(str(tmp_path), "text", skip_broken=True)
    assert [d.text for d in documents(source)] == ["a", "b", "c"]
    assert source.skipped["broken"] == 3


def test_state_follows_the_files(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    before = files.open_path(str(tmp_path), "text").state
    assert files.open_path(str(tmp_path), "text").state == before
    (tmp_path / "b.txt").write_text("b")
    assert files.open_path(str(tmp_path), "text").state != before


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/b.txt").write_text("b")
    top = tmp_path / "top"
    top.mkdir()
    (top / "a.txt").write_text("a")
    (top / "more").symlink_to(tmp_path / "other")
    (top / "same").symlink_to(tmp_path / "other")
    (top / "loop").symlink_to(top)
    (top / "up").symlink_to(tmp_path)
    source = files.open_path(str(top), "text")
    assert [document.text for document in documents(source)] == ["a", "b"]
    assert source.skipped["folders seen before"] == 2 and source.skipped["links to a folder above"] == 1


def test_a_remote_file_that_is_gone_says_so():
    """fsspec's errors have no text of the system's."""
    found = []
    list(files.read(fs.Url("memory://gone.txt"), "text", found.append))
    assert "memory://gone.txt: cannot be read (FileNotFoundError" in str(found[0])
