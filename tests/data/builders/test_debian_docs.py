"""Pages out of Debian archives, each paragraph once."""

import io
import subprocess
import tarfile

from chinchilla_jax.data.builders import cleaning


def test_debian_documents_are_unique_paragraphs(tmp_path, monkeypatch):
    from chinchilla_jax.data.builders import debian_docs

    def archive(*_, **__):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for name, text in {
                "./usr/a.html": b"<p>A paragraph that is long enough.</p><p>x</p>",
                "./usr/b.txt": b"no",
            }.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text))
        data.seek(0)
        return FakeProcess(data)

    monkeypatch.setattr(subprocess, "Popen", archive)
    found = list(debian_docs.members(tmp_path, debian_docs.re.compile(r"\.html$")))
    assert [name for name, _ in found] == ["/usr/a.html"]
    pages = [(name, cleaning.html(text)) for name, text in found] * 2
    assert list(debian_docs.unique(iter(pages))) == [("/usr/a.html", "A paragraph that is long enough.\n")]
    grouped = list(debian_docs.grouped("d", ["x" * 40_000] * 3))
    assert [(name, len(kept)) for name, kept in grouped] == [("d/0", 2), ("d/1", 1)]


class FakeProcess:
    """A process whose output is known."""

    def __init__(self, stdout):
        self.stdout = stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
