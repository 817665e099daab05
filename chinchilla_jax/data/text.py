"""Bytes to text: UTF-8 and nothing else, with advice that fits what the bytes are instead."""

import codecs
import re
from pathlib import Path

from chinchilla_jax.errors import UserError

BOM = codecs.BOM_UTF8
# The longer marks first: UTF-32's begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Wide encodings without a mark, by the place of the byte that is not zero in a plain letter; the widest first.
WIDE = {"utf-32le": (4, 0), "utf-32be": (4, 3), "utf-16le": (2, 0), "utf-16be": (2, 1)}
UNPACK = {".gz": "gunzip -c", ".zst": "zstd -dc"}  # ending of a compressed file -> what writes its content
READABLE = frozenset(b"\t\n\r" + bytes(range(32, 127)))
WHOLE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


class Broken(UserError):
    """Content that cannot be read as text."""


def wide(head: bytes) -> str:
    """The name of the 16 or 32 bit encoding that a file with this beginning is in, or nothing."""
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return name
    for name, (size, place) in WIDE.items():
        units = [head[i : i + size] for i in range(0, len(head) - size + 1, size)]
        plain = sum(unit[place] in READABLE and unit.count(0) == size - 1 for unit in units)
        if units and plain > 0.7 * len(units):
            return name
    return ""


def decode(text: bytes, path: Path | str, offset: int = 0) -> str:
    """`text`, which stands at byte `offset` of `path`, as UTF-8; a `Broken` names the place and what can be done."""
    place = text.find(b"\0")
    if place >= 0:
        if name := wide(text[:8192]):
            raise Broken(f"{path}: {convert(path, name)}")
        raise Broken(f"{path}: byte {offset + place:,} is NUL, so this is no plain text; replace it")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Broken(f"{path}: byte {offset + error.start:,} is not UTF-8; {advice(text, path, error)}") from error


def convert(path: Path | str, encoding: str) -> str:
    """The advice for a file in a known encoding."""
    command = f"iconv -f {encoding} -t utf-8"
    unpack = UNPACK.get(Path(path).suffix.lower())
    command = f"{unpack} {path} | {command}" if unpack else f"{command} {path}"
    return f"the text is in {encoding.upper()}, not UTF-8; convert it: `{command} > NEW.txt`"


def advice(text: bytes, path: Path | str, error: UnicodeDecodeError) -> str:
    """What to do about bytes that are no UTF-8. No encoding is named that may be wrong: that would spoil the text."""
    if name := wide(text[:8192]):
        return convert(path, name)
    if error.reason == "unexpected end of data":
        return "the text ends inside a character, so the file may be cut off; replace it"
    if len(WHOLE.findall(text)) > len(re.findall(rb"[\x80-\xff]", text)) / 4:
        return "most of the text is UTF-8, so a few bytes are damaged; correct them"
    return (
        f"`file -i {path}` guesses the encoding; convert text with `iconv -f ENCODING -t utf-8`, and look at the result"
    )


def whole(path: Path) -> str:
    """The text of a file, byte for byte but for a leading mark."""
    return unmarked(path.read_bytes(), path)


def unmarked(data: bytes, path: Path | str) -> str:
    """The text of the bytes of a file, without a leading mark."""
    start = len(BOM) if data.startswith(BOM) else 0
    return decode(data[start:], path, start)
