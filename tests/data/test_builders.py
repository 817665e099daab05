"""Cleaning of documents, and builders over small raw files."""

import io
import subprocess
import tarfile

import pytest

from chinchilla_jax.data.builders import cleaning, download


def test_html_gives_paragraphs_without_scripts_and_navigation():
    page = (
        "<html><head><title>t</title><style>x</style></head><body><nav>menu</nav><h1>Big &amp; small</h1>"
        "<p>One <b>bold</b>\n word.</p><script>var a;</script><pre>a\n  b</pre><ul><li>x<li>y</ul>tail</body>"
    )
    assert cleaning.html(page) == ["Big & small", "One bold word.", "a\n  b", "x", "y", "tail"]


def test_pod_keeps_headings_and_the_text_of_codes():
    text = "=pod\n\n=head1 NAME\n\nUse C<print> and B<I<both>>, or C<< a->b >>, C<aE<gt>b>.\n\n  code();\n\n=cut\n"
    assert [p for p in cleaning.pod(text) if p] == ["NAME", "Use print and both, or a->b, a>b.", "  code();"]


def test_dictionary_entries_lose_pronunciation_and_tags():
    text = 'Affect \\Af*fect"\\, v. t.\n   1. To act upon.\n      [1913 Webster]\n\nAffable \\x\\ a.\n   Kind. [PJC]\n'
    assert cleaning.dictionary(text) == ["Affect, v. t.\n   1. To act upon.", "Affable a.\n   Kind."]


def test_descriptions_become_paragraphs():
    text = "Package: a\nDescription-md5: 0\nDescription-en: short one\n Long text\n .\n more\n\nPackage: b\n"
    assert list(cleaning.descriptions(text)) == ["short one\nLong text\n\nmore"]


def test_a_failed_download_names_the_command(tmp_path):
    with pytest.raises(download.Unreachable, match=r"download failed \(.*\); type: cd .* && false"):
        download.run(["false"], cwd=tmp_path)
    with pytest.raises(download.Unreachable, match="type: no-such-program-here a b"):
        download.run(["no-such-program-here", "a", "b"])


def test_docstrings_of_a_tree(tmp_path):
    from chinchilla_jax.data.builders import docstrings

    long = "Long enough to be worth keeping as text, surely."
    (tmp_path / "pkg" / "tests").mkdir(parents=True)
    (tmp_path / "pkg" / "a.py").write_text(
        f'"""{long} A."""\ndef f():\n    """{long} F."""\nclass C:\n    """short"""\n'
    )
    (tmp_path / "pkg" / "b.py").write_text(f'"""{long} A."""\n')
    (tmp_path / "pkg" / "bad.py").write_text("def (")
    (tmp_path / "pkg" / "odd.py").write_text(f'"""{long} \\ud800"""\n')
    (tmp_path / "pkg" / "tests" / "t.py").write_text(f'"""{long} T."""\n')
    assert list(docstrings.documents([tmp_path])) == [("pkg.a", f"{long} A.\n\n\n{long} F.\n")]


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
