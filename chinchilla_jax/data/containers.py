"""Files that are no plain text: zstd and parquet by pyarrow, web archives by FastWARC (an optional package)."""

import io
from collections.abc import Iterator
from typing import BinaryIO

from chinchilla_jax.data import fs
from chinchilla_jax.data.documents import Notes
from chinchilla_jax.data.text import Broken
from chinchilla_jax.errors import UserError

ARCHIVES = (".warc", ".wet")
ROWS = 1 << 10  # of a parquet file that are read at a time


class Zstd(io.RawIOBase):
    """A file with zstd's compression; one that is cut off or damaged is an `EOFError`."""

    def __init__(self, opened: BinaryIO):
        import pyarrow

        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(opened, mode="r"), "zstd")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer) -> int:
        """Fill the buffer as far as the file goes."""
        try:
            found = self._stream.read(len(buffer))
        except OSError as error:
            raise EOFError(str(error)) from error
        buffer[: len(found)] = found
        return len(found)


def zstd(opened: BinaryIO) -> BinaryIO:
    """What an opened zstd file holds, for reading."""
    return io.BufferedReader(Zstd(opened), 1 << 20)


def parquet(path: str, field: str, groups: tuple[int, int] | None, notes: Notes) -> Iterator[tuple[str, str]]:
    """(key, text) of the rows of a parquet file, or of its row groups [first, last)."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        file = ParquetFile(fs.opened(path))
        has = file.schema_arrow.names
        if field not in has:
            raise Broken(f"{path}: no column {field!r} (it has: {', '.join(has)}); name the text's with --data.field")
        first, last = groups or (0, file.num_row_groups)
        number = sum(file.metadata.row_group(group).num_rows for group in range(first))
        for batch in file.iter_batches(ROWS, row_groups=range(first, last), columns=[field]):
            for text in batch.column(0).to_pylist():
                if isinstance(text, bytes):
                    text = text.decode()
                if text is not None and not isinstance(text, str):
                    raise Broken(f"{path}: column {field!r} holds no text; name the text's with --data.field")
                notes.records += 1
                yield f"{path}[{number}]", text or ""  # a row without text is counted as empty
                number += 1
    except UnicodeDecodeError as error:
        raise Broken(f"{path}: row {number:,} of column {field!r} is not UTF-8; correct the column") from error
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise Broken(f"{path}: damaged parquet file (row {number:,}: {first_line(error)}); replace it") from error


def rows(path: str) -> list[dict]:
    """All rows of a small parquet file."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with fs.opened(path) as file:
            return ParquetFile(file).read().to_pylist()
    except pyarrow.ArrowException as error:
        raise Broken(f"{path}: damaged parquet file ({first_line(error)}); replace it") from error


def row_groups(path: str) -> list[int]:
    """Bytes of each row group of a parquet file; none for a damaged one, which reading will say."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        metadata = ParquetFile(fs.opened(path)).metadata
    except (pyarrow.ArrowException, OSError):
        return []
    return [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]


def archive(path: str, opened: BinaryIO) -> Iterator[tuple[str, str]]:
    """(address, text) of the plain text (WET) or the HTML pages (WARC) of a web archive.

    Of a page paragraphs are kept and markup is not; what is no UTF-8 is replaced, since the web is not clean.
    """
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError as error:
        raise UserError(f"{path}: web archives need another package: pip install fastwarc") from error
    from chinchilla_jax.data.builders import cleaning

    kinds = WarcRecordType.conversion | WarcRecordType.response
    try:
        for record in ArchiveIterator(opened, record_types=kinds, parse_http=True, stream_detect=False):
            address = record.headers.get("WARC-Target-URI") or record.record_id or "its first record"
            size = record.content_length
            content = record.reader.read()
            if len(content) < size or "Content-Length" not in record.headers:
                raise Broken(f"{path}: damaged web archive (it ends inside {address}); replace it")
            if record.record_type == WarcRecordType.conversion:
                yield address, content.decode("utf-8", "replace")
            elif "html" in (record.http_content_type or ""):
                text = content.decode(record.http_charset or "utf-8", "replace")
                yield address, "\n\n".join(cleaning.html(text))
    except (ValueError, RuntimeError, OSError) as error:
        raise Broken(f"{path}: damaged web archive ({first_line(error)}); replace it") from error


def first_line(error: Exception) -> str:
    """The first line of a message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
