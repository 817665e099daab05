"""The checks of doctor, each by itself."""

import sys
from types import SimpleNamespace

import pytest

from chinchilla_jax.commands import checks, hints
from chinchilla_jax.commands.checks import Row
from chinchilla_jax.config import Config, TrainConfig


def args(tmp_path, **changes):
    return SimpleNamespace(**{"run_dir": str(tmp_path), "json": False, "deep": False, **changes})


def examined(monkeypatch, name, error, tmp_path):
    """The row of a check that raises."""

    def broken(config, args):
        raise error

    monkeypatch.setattr(checks, "CHECKS", ((name, broken, "fail", "do this"),))
    return checks.examine(name, Config(), args(tmp_path))


def test_a_check_that_raises_becomes_a_row(monkeypatch, tmp_path):
    row = examined(monkeypatch, "packages", ImportError("no module\nof that name"), tmp_path)
    assert row == Row("fail", "ImportError: no module of that name", hints.install())
    assert examined(monkeypatch, "disk", PermissionError("denied"), tmp_path).fix == "do this"


def test_a_variable_that_may_be_the_reason_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    row = examined(monkeypatch, "devices", AssertionError(), tmp_path)
    assert row.status == "fail" and "JAX has no such device (with JAX_PLATFORMS=cuda)" in row.text
    assert row.fix.startswith("unset or correct JAX_PLATFORMS=cuda")


def test_memory_is_that_of_the_job(tmp_path, monkeypatch):
    """What training is held to, such as a Slurm job's group, and not the machine's."""
    monkeypatch.setattr(checks, "host_memory", lambda: 2.0**30)
    row = checks.host(Config(), args(tmp_path))
    assert row.status == "warn" and "1.0 GiB" in row.text


@pytest.mark.parametrize("free, status", [(2**28, "fail"), (2 * 2**30, "warn"), (2**40, "ok")])
def test_little_space(tmp_path, monkeypatch, free, status):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert checks.disk(Config(), args(tmp_path)).status == status


def test_other_versions_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "pins", lambda: {"jax": "0.0.1"})
    row = checks.packages(Config(), args(tmp_path))
    assert row.status == "warn" and "tested: 0.0.1" in row.text and row.fix


def test_pins_are_those_of_this_python():
    assert checks.pins()["jax"].startswith("0.10." if sys.version_info < (3, 12) else "0.12.")


def test_no_requirements_file(tmp_path, monkeypatch):
    monkeypatch.setattr(hints, "ROOT", tmp_path)
    assert checks.pins() == {}


def test_no_index_is_a_warning_with_a_way_out(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise checks.subprocess.TimeoutExpired("pip", 12)

    monkeypatch.setattr(checks.subprocess, "run", fail)
    row = checks.index(Config(), args(tmp_path))
    assert row.status == "warn" and "docstrings" in row.fix


def test_compile_cache(tmp_path):
    def look(folder):
        return checks.compile_cache(Config(train=TrainConfig(compile_cache=str(folder))), args(tmp_path))

    assert look("").status == "ok" and look(tmp_path / "later").status == "ok"
    (tmp_path / "whole").write_bytes(b"x")
    assert look(tmp_path).status == "ok"
    (tmp_path / "cut").touch()
    assert look(tmp_path).status == "warn"


@pytest.mark.slow
def test_two_processes_really_add(tmp_path):
    row = checks.processes(Config(), args(tmp_path, deep=True))
    assert row.status == "ok" and "gloo" in row.text, row


def test_checkpoints_of_a_run_are_verified(tmp_path):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    row = checks.checkpoints(Config(), SimpleNamespace(run_dir=str(tmp_path)))
    assert row.status == "warn" and "7 (" in row.text and "newest good step None" in row.text
    assert checks.checkpoints(Config(), SimpleNamespace(run_dir=None)).status == "ok"
    assert checks.came_from(Config(), SimpleNamespace(run_dir="nowhere")).text == "nowhere holds no run"
