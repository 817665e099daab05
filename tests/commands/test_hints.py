"""Commands that a message tells the user to type."""

import sys

from chinchilla_jax.commands import hints
from chinchilla_jax.config import Config, replace


def test_the_next_command_names_the_interpreter_that_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir(parents=True)
    for path in ("usr/bin/python3", "usr/bin/python", ".venv/bin/python"):
        (tmp_path / path).symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "usr/bin"))
    for executable, said in (
        (tmp_path / ".venv/bin/python", ".venv/bin/python"),
        (tmp_path / "usr/bin/python3", "python"),
        ("/opt/a b/bin/python", "'/opt/a b/bin/python'"),
    ):
        monkeypatch.setattr(sys, "executable", str(executable))
        assert hints.line("report", "--run-dir", "a b") == f"{said} -m chinchilla_jax report --run-dir 'a b'"


def test_a_model_with_a_head_is_shown_by_its_task():
    shape = {"model.vocab_size": 64, "model.d_model": 16}
    text = hints.line("generate", "--run-dir", "r", "--prompt", "Once upon a time")
    assert hints.use(replace(Config(), shape), "r") == text
    task = hints.line("evaluate", "--run-dir", "r", "--task", "--task.test", "FILE")
    for kind, labels in (("labels", ("a", "b")), ("tags", ("O", "B-x")), ("spans", ())):
        config = replace(Config(), {**shape, "task.kind": kind, "task.labels": labels})
        assert hints.use(config, "r") == task


def test_advice_is_that_of_a_clone_or_of_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.setattr(hints, "interpreter", lambda: "python")
    monkeypatch.setattr(hints, "ROOT", tmp_path)
    assert hints.install() == 'python -m pip install "chinchilla_jax[train]"' and not hints.in_clone()
    assert hints.install("lm_eval") == 'python -m pip install "chinchilla_jax[lm-eval]"'
    assert hints.quickstart() == "python -m chinchilla_jax prepare --config quickstart"
    (tmp_path / "Makefile").touch()
    assert not hints.in_clone(), "a Makefile of somebody's"
    (tmp_path / "requirements.txt").touch()
    assert hints.install("lm_eval") == "make env EXTRA=lm-eval" and hints.install("jax") == "make env"
    assert hints.in_clone() and hints.install() == "make env" and hints.quickstart() == "make quickstart"
