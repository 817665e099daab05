"""What is repaired in a text. Nothing is by default: a text comes back from its tokens as it was."""

import html
import re

# C0 and C1 control characters but for tab and line end, the byte order mark and other marks without width.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\u200b\u2060\ufff9-\ufffb]")
LINE_ENDS = re.compile("\r\n?|\x85|\u2028|\u2029")
TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]{0,500})?/?>|<!--.{0,2000}?-->", re.DOTALL)
SILENT = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")
# UTF-8 that was read as Windows-1252: a lead byte followed by one to three continuation bytes, as that table has them.
TAIL = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in range(0x80, 0xC0))
MOJIBAKE = re.compile(f"[\xc2-\xf4][{re.escape(TAIL)}]{{1,3}}")


def controls(text: str) -> str:
    """Line ends as "\\n", other control characters and marks without width removed."""
    if "\r" in text or "\x85" in text or "\u2028" in text or "\u2029" in text:
        text = LINE_ENDS.sub("\n", text)
    return CONTROLS.sub("", text) if CONTROLS.search(text) else text


def encoding(text: str) -> str:
    """UTF-8 that somebody read as Windows-1252 ("caf\xc3\xa9" for "caf\xe9") put right, stretch by stretch."""
    return MOJIBAKE.sub(_decoded, text) if not text.isascii() else text


def _decoded(match: re.Match) -> str:
    raw = b"".join(c.encode("cp1252", "ignore") or c.encode("latin-1", "ignore") for c in match[0])
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return match[0]


def markup(text: str) -> str:
    """Without leftovers of HTML: scripts, tags, comments; entities as characters."""
    if "<" in text:
        text = TAG.sub("", SILENT.sub("", text))
    return ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


STEPS = {"encoding": encoding, "controls": controls, "html": markup}
VERSION = 1
