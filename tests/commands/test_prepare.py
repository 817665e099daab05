"""The prepare command as a user types it."""

import json
from types import SimpleNamespace

import pytest

from chinchilla_jax.__main__ import main
from chinchilla_jax.commands import hints, prepare
from chinchilla_jax.config import Config, DataConfig

LEARNS = ("pretrain", "--config", "quickstart")


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
        "next: " + hints.line(*LEARNS, "--data.store", str(tmp_path / "s"), "--run-dir", "runs/s"),
    ]
    assert main(flags) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_next_command_keeps_the_config(flags, capsys, tmp_path):
    config = tmp_path / "mine.py"
    config.write_text("from chinchilla_jax.config import Config\ndef config(): return Config()\n")
    assert main([*flags, "--config", str(config), "--run-dir", "runs/x"]) == 0
    words = ("pretrain", "--config", str(config), "--data.store", str(tmp_path / "s"), "--run-dir", "runs/x")
    assert capsys.readouterr().out.splitlines()[-1] == "next: " + hints.line(*words)


def test_the_next_command_leaves_the_run_of_the_tokenizer_alone():
    """`prepare --data.tokenizer runs/theirs --data.store data/theirs`, as the page on tokenizers has it."""
    args = SimpleNamespace(config="", run_dir="")
    for tokenizer, run_dir in (("runs/theirs", "runs/theirs-more"), ("runs/other", "runs/theirs"), ("", "runs/theirs")):
        config = Config(data=DataConfig(store="data/theirs", tokenizer=tokenizer))
        found = prepare.next_command(config, args, 1)
        assert found == hints.line(*LEARNS, "--data.store", "data/theirs", "--run-dir", run_dir)


def test_a_large_corpus_gets_no_small_settings(flags, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(prepare, "SMALL", 10)
    assert main(flags) == 0
    assert "--config" not in capsys.readouterr().out.splitlines()[-1]


def test_a_store_of_its_own_for_a_text_of_ones_own(flags, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    del flags[3:5]
    assert main(flags) == 0
    assert (tmp_path / "data/a/manifest.json").is_file()
    assert "--data.store data/a --run-dir runs/a" in capsys.readouterr().out
    assert main([*flags, "--data-dir", "elsewhere"]) == 0, "the folder of TFDS does not change what is in a store"
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
        (["--report", __file__], 74),
    ],
)
def test_mistakes_are_one_line(flags, change, code, capsys, tmp_path):
    assert main([*flags, *change]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt"]
