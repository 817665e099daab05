"""What Debian's package lists and a dictionary have: sections, synopses, quotations."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax.data.builders import cleaning
from chinchilla_jax.data.builders.debian_docs import members, package, translations

NO_SECTION = {"oldlibs", "metapackages", "debug", "tasks", "localization", "misc", "libs", "libdevel"}
FEWEST = 300  # packages of a section
QUOTATION = re.compile(r"\n {8,}(\S[^\n]*(?:\n +\S[^\n]*)*?)\s+--([A-Z][^.\n\]]*\.(?: [A-Z][^.\n\]]*\.)*)")
BODY, SYNOPSIS = 20, 3  # words that a description and its synopsis have at least


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The fields of each stanza of a Debian list; lines that go on keep their newlines."""
    for stanza in text.split("\n\n"):
        fields = re.findall(r"^([A-Za-z0-9-]+): ?(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        if fields:
            yield dict(fields)


def described(raw: Path) -> Iterator[tuple[str, str, str, str]]:
    """(source package, section, synopsis, body) of every package with an English description."""
    text = translations(raw / "apt")
    said = {entry["Description-md5"]: entry["Description-en"] for entry in stanzas(text) if "Description-en" in entry}
    for path in sorted((raw / "apt" / "lists").glob("*_Packages")):
        for entry in stanzas(path.read_text(encoding="utf-8", errors="replace")):
            synopsis, _, body = said.get(entry.get("Description-md5", ""), "").partition("\n")
            section = entry.get("Section", "").split("/")[-1]
            lines = [line[1:] if line.strip() != "." else "" for line in body.split("\n")]
            if synopsis and body:
                source = entry.get("Source", entry["Package"]).split(" ")[0]
                yield source, section, synopsis.strip(), "\n".join(lines).strip()


def sections(raw: Path) -> Iterator[tuple[str, dict]]:
    """Descriptions with their section, of sections that have some packages."""
    found = [entry for entry in described(raw) if entry[1] not in NO_SECTION]
    counts = Counter(section for _, section, _, _ in found)
    for source, section, synopsis, body in found:
        if counts[section] >= FEWEST:
            yield source, {"text": f"{synopsis}\n{body}", "label": section}


def synopses(raw: Path) -> Iterator[tuple[str, dict]]:
    """Descriptions with their synopsis; of those that begin alike the first."""
    seen = set()
    for source, _, synopsis, body in described(raw):
        first = body.split("\n\n")[0]
        if len(body.split()) >= BODY and len(synopsis.split()) >= SYNOPSIS and first not in seen:
            seen.add(first)
            yield source, {"document": body, "summary": synopsis}


def quotations(raw: Path) -> Iterator[tuple[str, dict]]:
    """Who is quoted in an entry of a dictionary: the answer stands behind the quotation."""
    for _, text in members(package(raw, "dict-gcide"), re.compile(r"/gcide\.dict\.dz$")):
        for entry in cleaning.dictionary(text):
            for number, found in enumerate(QUOTATION.finditer(entry)):
                quoted, author = " ".join(found[1].split()), found[2].strip()
                answer = {"text": author, "answer_start": found.start(2)}
                question = f'Who is quoted: "{quoted}"?'
                yield f"{entry[:40]}", {
                    "id": f"{entry.split()[0]}-{number}", "context": entry, "question": question, "answers": [answer],
                }  # fmt: skip
