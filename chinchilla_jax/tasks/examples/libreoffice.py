"""Translations: paragraphs of LibreOffice's help, which has the same file and element ids in every language."""

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from chinchilla_jax.data.builders.debian_docs import members, package

BLOCKS = ("p", *(f"h{n}" for n in range(1, 7)))
HAN = re.compile(r"[\u4e00-\u9fff]")
LEAST_WORDS = 4
RATIOS = {"zh-cn": (0.1, 1.5)}  # characters of the translation to one of the source; otherwise as European pairs are
RATIO = (0.4, 2.6)
FILE = re.compile(r"/help/[^/]+/text/(.*\.html)$")


class _Paragraphs(HTMLParser):
    """(number of its kind, id) -> text of the paragraphs and headings that have an id, or hold an element with one."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[tuple[str, str], str] = {}
        self._tag = self._id = ""
        self._held: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in BLOCKS:
            self.close_block()
            self._tag = tag
        if self._tag:
            self._id = self._id or dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == self._tag:
            self.close_block()

    def handle_data(self, data: str) -> None:
        if self._tag:
            self._held.append(data)

    def close_block(self) -> None:
        """Keep the block that ends here."""
        text = " ".join("".join(self._held).split())
        if self._tag and self._id and text:
            self.found.setdefault((self._tag, self._id), text)
        self._tag = self._id = ""
        self._held = []


def paragraphs(archive: Path) -> dict[tuple[str, str, str], str]:
    """(file, tag, id) -> text of a help package."""
    found = {}
    for path, text in members(archive, FILE):
        parser = _Paragraphs()
        parser.feed(text)
        parser.close()
        name = FILE.search(path)[1]
        found |= {(name, *key): value for key, value in parser.found.items()}
    return found


def pairs(language: str) -> Callable[[Path], Iterator[tuple[str, dict]]]:
    """Makes the pairs of English and another language: a source once, with what looks like a translation of it."""

    def make(raw: Path) -> Iterator[tuple[str, dict]]:
        english, other = (paragraphs(package(raw, f"libreoffice-help-{name}")) for name in ("en-us", language))
        low, high = RATIOS.get(language, RATIO)
        seen = set()
        for key, source in english.items():
            target = other.get(key, "")
            fits = low <= len(target) / len(source) <= high and target != source and len(source.split()) >= LEAST_WORDS
            if fits and source not in seen and (language != "zh-cn" or HAN.search(target)):
                seen.add(source)
                yield source, {"translation": {"en": source, language.split("-")[0]: target}}

    return make
