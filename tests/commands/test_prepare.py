"""The prepare command as a user types it."""

import json
import shlex

import pytest

from chinchilla_jax.__main__ import main


@pytest.fixture
def flags(tmp_path):
    """Arguments that make a small store."""
    (tmp_path / "a.txt").write_text("the sea wind carries old songs\n\n" * 200)
    return [
        "prepare",
        "--data.sources",
        str(tmp_path / "a.txt"),
        "--data.store",
        str(tmp_path / "s"),
        "--data.vocab-size",
        "300",
    ]


def test_it_says_what_it_made_and_what_to_type_next(flags, capsys, tmp_path):
    assert main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("train: 1 documents") and "bytes a token" in line for line in lines)
    assert any("licence" in line for line in lines)
    assert lines[-2:] == [
        f"wrote {tmp_path / 's'}",
        f"next: python -m chinchilla_jax pretrain --data.store {shlex.quote(str(tmp_path / 's'))} --run-dir runs/s",
    ]
    assert main(flags) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_json_is_one_object(flags, capsys):
    assert main([*flags, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splits"]["train"]["tokens"] > 0 and report["tokenizer"]["pieces"] <= 300


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (["--data.sources", "/nowhere/at/all"], 78),
        (["--data.vocab-size", "100"], 78),
        (["--data.valid-fraction", "2"], 78),
        (["--data.tokenizer", "/nowhere/m.model"], 78),
        (["--data.kind", "x"], 78),
        (["--data.store", "/proc/nowhere/s"], 74),
    ],
)
def test_mistakes_are_one_line(flags, change, code, capsys, tmp_path):
    assert main([*flags, *change]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt"]
