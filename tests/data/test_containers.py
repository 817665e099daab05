"""Parquet, zstd, web archives, large files in parts, and remote files: the same documents, and damage on one line."""

import gzip
import json
import os
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import build, files
from chinchilla_jax.errors import UserError
from tests.data.conftest import story
from tests.data.reading import documents

TEXTS = [story(n, 1 + n % 9) for n in range(50)]


def read(path, field="text", skip_broken=False) -> list[str]:
    """The texts of a source."""
    return [document.text for document in documents(files.open_path(str(path), field, skip_broken))]


def lines(texts) -> bytes:
    """One JSON record a line."""
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def write_parquet(path: Path, texts, rows: int = 7) -> Path:
    """A parquet file of small row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"text": texts, "n": list(range(len(texts)))}), path, row_group_size=rows)
    return path


def test_parquet_and_folders_of_it(tmp_path):
    write_parquet(tmp_path / "set" / "data" / "train-00000-of-00002.parquet", TEXTS[:30])
    write_parquet(tmp_path / "set" / "data" / "train-00001-of-00002.parquet", TEXTS[30:])
    (tmp_path / "set" / "README.md").write_text("# about")
    assert read(tmp_path / "set" / "data") == TEXTS
    source = files.open_path(str(tmp_path / "set"), "text")
    assert [d.text for d in documents(source)] == ["# about", *TEXTS] and source.records == 50
    assert read(write_parquet(tmp_path / "none.parquet", ["a", None, "b"])) == ["a", "", "b"]  # counted as empty


def test_zstd_of_records_and_of_text(tmp_path):
    (tmp_path / "r.jsonl.zst").write_bytes(pyarrow.compress(lines(TEXTS), "zstd", asbytes=True))
    (tmp_path / "t.txt.zst").write_bytes(pyarrow.compress(TEXTS[3].encode(), "zstd", asbytes=True) * 2)
    assert read(tmp_path / "r.jsonl.zst") == TEXTS and read(tmp_path / "t.txt.zst") == [TEXTS[3] * 2]
    assert read(tmp_path) == [*TEXTS, TEXTS[3] * 2]


@pytest.mark.parametrize("size", [1, 50, 333, 10_000])
def test_parts_of_a_large_file_have_every_record_once(tmp_path, monkeypatch, size):
    monkeypatch.setattr(files, "RANGE", size)
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(TEXTS))
    source = files.open_path(str(tmp_path / "r.jsonl"), "text")
    assert (
        len(source.units) == -(-(tmp_path / "r.jsonl").stat().st_size // size) and read(tmp_path / "r.jsonl") == TEXTS
    )
    write_parquet(tmp_path / "p.parquet", TEXTS)
    assert read(tmp_path / "p.parquet") == TEXTS
    assert size == 10_000 or len(files.open_path(str(tmp_path / "p.parquet"), "text").units) == 8


def damaged(folder: Path) -> dict[str, str]:
    """Damaged files, and what is to be said of each."""
    whole = write_parquet(folder / "whole.parquet", TEXTS).read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    broken = bytearray(whole)
    broken[40:400] = os.urandom(360)
    (folder / "broken.parquet").write_bytes(broken)
    (folder / "pointer.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    packed = pyarrow.compress(os.urandom(1 << 16) + lines(TEXTS), "zstd", asbytes=True)
    (folder / "cut.jsonl.zst").write_bytes(packed[: len(packed) // 2])
    (folder / "junk.txt.zst").write_bytes(b"no zstd at all" * 9)
    whole = write_parquet(folder / "field.parquet", TEXTS)
    return {
        "cut.parquet": "damaged parquet file", "broken.parquet": "damaged parquet file",
        "pointer.parquet": "damaged parquet file", "cut.jsonl.zst": r"damaged zstd file|not UTF-8|NUL",
        "junk.txt.zst": "damaged zstd file",
    }  # fmt: skip


def test_damage_is_one_line_and_can_be_passed_over(tmp_path):
    for name, message in damaged(tmp_path).items():
        config = DataConfig(sources=(str(tmp_path / name),), store=str(tmp_path / "s"), vocab_size=300)
        with pytest.raises(UserError, match=message) as caught:
            build.prepare(config, say=lambda line: None, show=False)
        assert caught.value.exit_code == 78 and name in str(caught.value), name
        assert len(read(tmp_path / name, skip_broken=True)) < 50
        assert not (tmp_path / "s").exists() and not list(tmp_path.glob(".s*"))
    with pytest.raises(UserError, match=r"no column 'body' \(it has: text, n\)"):
        read(tmp_path / "field.parquet", "body")


def test_a_file_that_disappears_is_one_line(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(TEXTS))
    source = files.open_path(str(tmp_path), "text")
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(UserError, match=r"b\.jsonl: cannot be read \(No such file"):
        list(documents(source))


def test_a_bucket_is_a_folder(cloud, tmp_path):
    cloud.pipe("gs://bucket/text/a.jsonl", lines(TEXTS[:10]))
    cloud.pipe("gs://bucket/text/b.jsonl.gz", gzip.compress(lines(TEXTS[10:20])))
    cloud.pipe("gs://bucket/text/c.parquet", write_parquet(tmp_path / "c.parquet", TEXTS[20:]).read_bytes())
    cloud.pipe("gs://bucket/text/d.png", b"\x89PNG")
    assert read("gs://bucket/text") == TEXTS and read("gs://bucket/text/*.gz") == TEXTS[10:20]
    with pytest.raises(UserError, match="nothing is there"):
        read("gs://bucket/none")


WET = """WARC/1.0\r
WARC-Type: conversion\r
WARC-Target-URI: http://a.example/\r
WARC-Record-ID: <urn:uuid:12345678-1234-1234-1234-123456789012>\r
Content-Type: text/plain\r
Content-Length: {}\r
\r
{}\r
\r
"""


def test_web_archives(tmp_path, monkeypatch):
    import sys

    body = "Text of a page.\nThe sea wind."
    for name, pack in (("a.warc.wet.gz", gzip.compress), ("b.wet", bytes)):
        (tmp_path / name).write_bytes(pack(WET.format(len(body), body).encode() * 2))
    monkeypatch.setitem(sys.modules, "fastwarc.warc", None)
    with pytest.raises(UserError, match="pip install fastwarc"):
        read(tmp_path / "b.wet")
    monkeypatch.undo()
    pytest.importorskip("fastwarc")
    assert read(tmp_path / "a.warc.wet.gz") == [body] * 2 == read(tmp_path / "b.wet")
    whole = (tmp_path / "b.wet").read_bytes()
    half = whole[: len(whole) // 2 + 60]
    cuts = (whole[:-20], "ends inside http"), (half, "ends inside"), (b"hello\n" * 99, "header")
    for cut, message in cuts:
        (tmp_path / "b.wet").write_bytes(cut)
        with pytest.raises(UserError, match=rf"b.wet: damaged web archive \(.*{message}"):
            read(tmp_path / "b.wet")
    page = "<html><head><title>no</title></head><body><p>One &amp; two.</p><script>x</script><p>Three</p></body></html>"
    content = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{page}"
    record = WET.format(len(content), content).replace("conversion", "response")
    record = record.replace("text/plain", "application/http; msgtype=response")
    (tmp_path / "c.warc.gz").write_bytes(gzip.compress(record.encode()))
    (text,) = read(tmp_path / "c.warc.gz")
    assert "One & two." in text and "Three" in text and "<" not in text and "x" not in text
