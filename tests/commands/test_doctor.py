"""`doctor`: a row a check, what to do beside what is wrong, exit code 78 only for the essential."""

import importlib.metadata
import json

import pytest

from chinchilla_jax.__main__ import main
from chinchilla_jax.commands import checks, doctor
from chinchilla_jax.commands.checks import Row
from chinchilla_jax.config import Config
from tests.commands.test_checks import args


@pytest.fixture
def offline(monkeypatch):
    """No question to a package index from a test."""
    some = tuple(row for row in checks.CHECKS if row[0] != "index")
    monkeypatch.setattr(checks, "CHECKS", some)


def test_a_healthy_machine(offline, capsys, tmp_path):
    assert main(["doctor", "--json", "--run-dir", str(tmp_path / "not" / "yet")]) == 0
    out, _ = capsys.readouterr()
    report = json.loads(out)
    rows = {row["check"]: row for row in report["checks"]}
    assert report["ok"] and rows.keys() == {name for name, *_ in checks.CHECKS}
    for name in ("packages", "devices", "disk", "compiling", "tokenizer"):
        assert rows[name]["status"] != "fail" and rows[name]["text"]
    assert list(tmp_path.iterdir()) == [], "doctor leaves nothing behind"


def test_table():
    rows = {"devices": Row("ok", "8 x cpu"), "compile cache": Row("fail", "x" * 90 + " end", "do that")}
    lines = doctor.table(rows, 80)
    assert lines[1] == " ok   devices       8 x cpu" and all(len(line) <= 80 for line in lines)
    assert lines[2].split()[:3] == ["fail", "compile", "cache"] and lines[2].endswith("do that")
    assert "".join(line[20:].split(" ")[0] for line in lines[2:]).startswith("x" * 80)


@pytest.mark.parametrize("status, code", [("ok", 0), ("warn", 0), ("fail", 78)])
def test_exit_code(monkeypatch, capsys, status, code):
    row = Row(status, "this is so", "do that")
    monkeypatch.setattr(checks, "CHECKS", (("essential", lambda config, args: row, "fail", ""),))
    assert main(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["checks"] == [{"check": "essential", **row._asdict()}] and report["ok"] == (code == 0)


def test_brackets_of_a_fix_are_shown(monkeypatch, capsys):
    row = Row("warn", "a GPU that JAX does not see", checks.plugin("cuda13"))
    monkeypatch.setattr(checks, "CHECKS", (("essential", lambda config, args: row, "fail", ""),))
    assert main(["doctor"]) == 0
    assert f"jax[cuda13]=={importlib.metadata.version('jax')}" in "".join(capsys.readouterr().out.split())


def test_a_check_that_kills_its_process_is_a_row_and_the_others_go_on(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_nonsense=1")
    rows = doctor.rows_of(["devices", "tokenizer"], Config(), args(tmp_path))
    assert rows["devices"].status == "fail" and rows["tokenizer"].status == "ok"
    assert "xla_nonsense" in rows["devices"].text and "XLA_FLAGS" in rows["devices"].fix
