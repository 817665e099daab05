"""What this program writes is no text: stores, runs and fits inside a source are left out."""

import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import build, files, own_output
from chinchilla_jax.data.naming import with_store
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError
from tests.data.conftest import story
from tests.data.reading import documents

OUTPUTS = {
    "st": ("manifest.json", "train.bin", "valid.txt"),
    "run": ("config.json", "metrics.jsonl", "report.md"),
    "export": ("config.json", "model.safetensors", "notes.txt"),
    "sweep": ("ladder.json", "runs.jsonl"),
    "fit": ("law.json", "fit.md"),
    "tfds/x/1.0.0": ("dataset_info.json", "features.json"),
}


def folder_with_output(top):
    """A folder of one text and one of every output, with a text inside."""
    top.mkdir()
    (top / "a.txt").write_text("text")
    (top / "code").mkdir()
    (top / "code/config.json").write_text("{}")
    for name, inner in OUTPUTS.items():
        (top / name).mkdir(parents=True)
        for file in (*inner, "stray.txt"):
            (top / name / file).write_text("never read")
    return top


def test_output_inside_a_source_is_left_out_and_counted(tmp_path):
    source = files.open_path(str(folder_with_output(tmp_path / "top")), "text")
    assert [document.text for document in documents(source)] == ["text", "{}"]
    assert set(source.skipped) - {"hidden", "broken"} == set(own_output.KINDS) and source.skipped["runs"] == 2


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_named_as_a_source_is_refused(tmp_path, name):
    top = folder_with_output(tmp_path / "top")
    for path in (top / name, top / name / "stray.txt"):
        with pytest.raises(UserError, match="no text to train on"):
            files.open_path(str(path), "text")


def test_a_folder_named_data_is_prepared_again_and_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for number in range(6):
        (tmp_path / "data" / f"{number}.txt").write_text(story(number))
    config = DataConfig(sources=("data",), vocab_size=300, workers=1)
    assert with_store(config).store == "data-tokens"
    inside = DataConfig(sources=("data",), store="data/st", vocab_size=300, workers=1)
    said = []
    first = build.prepare(inside, said.append, show=False)
    assert build.prepare(inside, said.append, show=False) == first and "nothing to do" in said[-1]
    held = TokenStore.open("data/st").valid_text.read_text()
    again = build.prepare(inside, said.append, show=False, force=True)
    assert again["sources"][0]["documents"] == first["sources"][0]["documents"] == 6
    assert TokenStore.open("data/st").valid_text.read_text() == held
    assert again["sources"][0]["skipped"] == {"token stores": 1}


def test_output_inside_a_remote_source_is_left_out_and_counted(tmp_path):
    """By folder, by pattern and by file; a store that is being made too."""
    top = folder_with_output(tmp_path / "top")
    before = files.open_path(f"file://{top}", "text").state
    (top / "st.preparing/read").mkdir(parents=True)
    (top / "st.preparing/read/000000-0000.text").write_text("never read")
    source = files.open_path(f"file://{top}", "text")
    assert [document.text for document in documents(source)] == ["text", "{}"] and source.state == before
    assert source.skipped["files of token stores"] == 4 and source.skipped["files of unfinished token stores"] == 1
    for url in (f"file://{top}/st", f"file://{top}/st/stray.txt", f"file://{top}/run/*.txt"):
        with pytest.raises(UserError, match=r"no text files in this folder .skipped \d files of"):
            files.open_path(url, "text")
    assert files.open_path(f"file://{top}/code/*.json", "text").units
