"""Paragraphs of running text from HTML, reStructuredText, POD, dictionaries and package descriptions."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

SHORTEST = 20
BLOCKS = re.compile(
    "address|article|aside|blockquote|body|br|caption|center|d[dlt]|div|fieldset|figcaption|figure|footer|form|h[1-6r]"
    "|header|li|main|[ou]l|p|pre|section|table|t[dhr]|title"
)
SILENT = {"script", "style", "nav", "head", "noscript", "svg"}
PRONUNCIATION = re.compile(r"\s*\\[^\\\n]{1,80}\\")
SOURCE_TAG = re.compile(r"\s*\[(?:1913 Webster|PJC|WordNet [\d.]+|Webster Suppl\.|RP|[A-Z]{2,4}(?: \d+)?)\]")
POD_CODE = re.compile(r"\b[A-Z]<<+ (.*?) >+>|\b[A-Z]<([^<>]*)>", re.DOTALL)
# Escaped brackets wait as private characters until the codes are gone.
POD_ESCAPES = (("E<gt>", "\ue000", ">"), ("E<lt>", "\ue001", "<"), ("E<sol>", "/", "/"), ("E<verbar>", "|", "|"))


class _Text(HTMLParser):
    """Collects the text of block elements."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[str] = []
        self._held: list[str] = []
        self._silent = self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self._silent += tag in SILENT
        if BLOCKS.fullmatch(tag):
            self.flush()
        self._verbatim += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(0, self._silent - (tag in SILENT))
        if BLOCKS.fullmatch(tag):
            self.flush()
        self._verbatim = max(0, self._verbatim - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._held.append(data)

    def flush(self) -> None:
        """End a paragraph."""
        text = "".join(self._held)
        self._held = []
        text = text.strip("\n").rstrip() if self._verbatim else " ".join(text.split())
        if text.strip():
            self.paragraphs.append(text)


def html(text: str) -> list[str]:
    """Paragraphs of an HTML page, without scripts and navigation."""
    parser = _Text()
    parser.feed(text)
    parser.close()
    parser.flush()
    return parser.paragraphs


def plain(text: str) -> list[str]:
    """Paragraphs of a text with blank lines between them."""
    return [paragraph.strip("\n") for paragraph in re.split(r"\n[ \t]*\n", text)]


def pod(text: str) -> list[str]:
    """Paragraphs of Perl documentation; commands go, the text of headings and of formatting codes stays."""
    found = []
    for paragraph in plain(text):
        if paragraph.startswith("="):
            command, _, rest = paragraph.partition(" ")
            paragraph = rest if command.startswith(("=head", "=item")) else ""
        for escape, waiting, _ in POD_ESCAPES:
            paragraph = paragraph.replace(escape, waiting)
        for _ in range(3):  # codes may stand inside codes
            paragraph = POD_CODE.sub(lambda code: code[1] or code[2] or "", paragraph)
        for _, waiting, character in POD_ESCAPES:
            paragraph = paragraph.replace(waiting, character)
        found.append(paragraph)
    return found


def dictionary(text: str) -> list[str]:
    """Entries of a dictd dictionary, without pronunciations and source tags."""
    text = SOURCE_TAG.sub("", PRONUNCIATION.sub("", text))
    return [re.sub(r"\n{3,}", "\n\n", entry).strip("\n") for entry in re.split(r"\n(?=\S)", text)]


def descriptions(text: str) -> Iterator[str]:
    """English package descriptions of a Translation-en file, one paragraph each."""
    for stanza in text.split("\n\n"):
        found = re.search(r"^Description-en: (.*(?:\n .*)*)", stanza, re.MULTILINE)
        if found:
            yield re.sub(r"^ \.?", "", found[1], flags=re.MULTILINE).strip()
