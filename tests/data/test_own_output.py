"""What this program writes is no text: stores, runs and fits inside a source are left out."""

import json

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


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/b.txt").write_text("b")
    top = tmp_path / "top"
    top.mkdir()
    (top / "a.txt").write_text("a")
    (top / "more").symlink_to(tmp_path / "other")
    (top / "same").symlink_to(tmp_path / "other")
    (top / "loop").symlink_to(top)
    (top / "up").symlink_to(tmp_path)
    source = files.open_path(str(top), "text")
    assert [document.text for document in documents(source)] == ["a", "b"]
    assert source.skipped["folders seen before"] == 2 and source.skipped["links to a folder above"] == 1


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


def test_json_files_are_records_where_they_hold_some(tmp_path):
    rows = [{"id": n, "body": f"text é {n}\n"} for n in range(3)]
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "one.json").write_text(json.dumps(rows[0]))
    (tmp_path / "settings.json").write_text('{"tab": 4}')
    (tmp_path / "plan.json").write_text('{"law": {}, "config": {}, "asked": {}}')
    source = files.open_path(str(tmp_path), "body")
    texts = [row["body"] for row in rows]
    assert [document.text for document in documents(source)] == [*texts, *texts, texts[0], '{"tab": 4}']
    assert source.records == 7 and list(source.said.values()) == [1] and source.skipped["plans"] == 1
    with pytest.raises(UserError, match=r"lines\.json:1: no field 'text' \(the record has: id, body\)"):
        list(documents(files.open_path(str(tmp_path), "text")))


def test_a_field_that_no_source_has_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text(story(1))
    config = DataConfig(sources=(str(tmp_path / "a.txt"),), store=str(tmp_path / "s"), field="body")
    with pytest.raises(UserError, match=r"--data\.field body: no source has records"):
        build.prepare(config, lambda line: None, show=False)
    assert not (tmp_path / "s").exists()


def test_a_blank_end_is_not_what_is_held_out(tmp_path):
    text = story(1, lines=400)
    (tmp_path / "a.txt").write_text(text + "\n" * 5000)
    config = DataConfig(sources=(str(tmp_path / "a.txt"),), store=str(tmp_path / "s"), vocab_size=300)
    build.prepare(config, lambda line: None, show=False)
    held = TokenStore.open(tmp_path / "s").valid_text.read_text()
    assert held.strip() and text.endswith(held)
