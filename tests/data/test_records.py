"""JSON records: one a line or all in a list, named by their line."""

import json

import pytest

from chinchilla_jax.data import files
from chinchilla_jax.errors import UserError
from tests.data.reading import documents
from tests.data.test_containers import TEXTS, lines, read


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


def test_jsonl_by_field_with_keys(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": t}) + "\n" for t in ("x", "海", "")) + "\n")
    found = list(documents(files.open_path(str(tmp_path), "body")))
    assert [(d.text, d.key.rpartition(":")[2]) for d in found] == [("x", "1"), ("海", "2"), ("", "3")]


def test_a_broken_record_in_a_later_part_is_named_by_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "RANGE", 200)
    (tmp_path / "r.jsonl").write_bytes(lines(TEXTS[:20]) + b'{"no": 1}\n' + lines(TEXTS[20:]))
    with pytest.raises(UserError, match=r"r\.jsonl:21 at byte .*no field 'text'"):
        read(tmp_path / "r.jsonl")
    assert read(tmp_path / "r.jsonl", skip_broken=True) == TEXTS
