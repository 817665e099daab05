"""`doctor`: a row a check, the mend beside what is wrong, exit code 78 only for the essential."""

import importlib.metadata
import json
import sys
from types import SimpleNamespace

import pytest

from chinchilla_jax.__main__ import main
from chinchilla_jax.commands import doctor
from chinchilla_jax.commands.doctor import Row
from chinchilla_jax.config import Config, TrainConfig


def args(tmp_path, **changes):
    return SimpleNamespace(**{"run_dir": str(tmp_path), "json": False, "deep": False, **changes})


@pytest.fixture
def offline(monkeypatch):
    """No question to a package index from a test."""
    checks = tuple(row for row in doctor.CHECKS if row[0] != "index")
    monkeypatch.setattr(doctor, "CHECKS", checks)


def test_a_healthy_machine(offline, capsys, tmp_path):
    assert main(["doctor", "--json", "--run-dir", str(tmp_path / "not" / "yet")]) == 0
    out, _ = capsys.readouterr()
    report = json.loads(out)
    rows = {row["check"]: row for row in report["checks"]}
    assert report["ok"] and rows.keys() == {name for name, *_ in doctor.CHECKS}
    for name in ("packages", "devices", "disk", "compiling", "tokenizer"):
        assert rows[name]["status"] != "fail" and rows[name]["text"]
    assert list(tmp_path.iterdir()) == [], "doctor leaves nothing behind"


def test_table(offline, capsys, tmp_path):
    assert main(["doctor", "--run-dir", str(tmp_path)]) == 0
    out, _ = capsys.readouterr()
    assert "devices" in out and "next: make quickstart" in out


@pytest.mark.parametrize("status, code", [("ok", 0), ("warn", 0), ("fail", 78)])
def test_exit_code(monkeypatch, capsys, status, code):
    row = Row(status, "this is so", "do that")
    monkeypatch.setattr(doctor, "CHECKS", (("essential", lambda config, args: row, "fail", ""),))
    assert main(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["checks"] == [{"check": "essential", **row._asdict()}] and report["ok"] == (code == 0)


def test_brackets_of_a_mend_are_shown(monkeypatch, capsys):
    row = Row("warn", "a GPU that JAX does not see", doctor.install("cuda13"))
    monkeypatch.setattr(doctor, "CHECKS", (("devices", lambda config, args: row, "fail", ""),))
    assert main(["doctor"]) == 0
    assert f"jax[cuda13]=={importlib.metadata.version('jax')}" in "".join(capsys.readouterr().out.split())


def test_a_check_that_raises_becomes_a_row():
    def broken(config, args):
        raise ImportError("no module\nof that name")

    assert doctor.examine(broken, "fail", "make env", Config(), None) == Row(
        "fail", "ImportError: no module of that name", "make env"
    )


def test_a_plugin_that_is_not_there_becomes_a_row():
    def broken(config, args):
        raise AssertionError

    assert doctor.examine(broken, "fail", "mend it", Config(), None).status == "fail"


def test_run_directory_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError("Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryDirectory", refuse)
    row = doctor.examine(doctor.disk, "fail", "another --run-dir", Config(), args(tmp_path))
    assert row.status == "fail" and row.mend == "another --run-dir"


@pytest.mark.parametrize("free, status", [(2**28, "fail"), (2 * 2**30, "warn"), (2**40, "ok")])
def test_little_space(tmp_path, monkeypatch, free, status):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert doctor.disk(Config(), args(tmp_path)).status == status


def test_other_versions_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "pins", lambda: {"jax": "0.0.1"})
    row = doctor.packages(Config(), args(tmp_path))
    assert row.status == "warn" and "tested: 0.0.1" in row.text and row.mend


def test_pins_are_those_of_this_python():
    assert doctor.pins()["jax"].startswith("0.10." if sys.version_info < (3, 12) else "0.12.")


def test_no_requirements_file(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.pins() == {}


def test_no_index_is_a_warning_with_a_way_out(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise doctor.subprocess.TimeoutExpired("pip", 12)

    monkeypatch.setattr(doctor.subprocess, "run", fail)
    row = doctor.index(Config(), args(tmp_path))
    assert row.status == "warn" and "docstrings" in row.mend


def test_compile_cache(tmp_path):
    def look(folder):
        return doctor.compile_cache(Config(train=TrainConfig(compile_cache=str(folder))), args(tmp_path))

    assert look("").status == "ok" and look(tmp_path / "later").status == "ok"
    (tmp_path / "whole").write_bytes(b"x")
    assert look(tmp_path).status == "ok"
    (tmp_path / "cut").touch()
    assert look(tmp_path).status == "warn"


@pytest.mark.slow
def test_two_processes_really_add(tmp_path):
    row = doctor.processes(Config(), args(tmp_path, deep=True))
    assert row.status == "ok" and "gloo" in row.text, row


def test_checkpoints_of_a_run_are_verified(tmp_path):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    row = doctor.checkpoints(Config(), SimpleNamespace(run_dir=str(tmp_path)))
    assert row.status == "warn" and "7 (" in row.text and "newest good step None" in row.text
    assert doctor.checkpoints(Config(), SimpleNamespace(run_dir=None)).status == "ok"
