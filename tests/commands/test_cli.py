"""A command from its flags to its closing lines: exit codes, one-line errors, pure JSON."""

import importlib
import json
import shutil
import sys
import types

import pytest

from chinchilla_jax.__main__ import main
from chinchilla_jax.commands import cli
from chinchilla_jax.errors import Diverged, Preempted, StorageError, UserError
from tests.commands.conftest import refused
from tests.runs import fresh


@pytest.mark.parametrize(
    "error, code",
    [
        (UserError("no"), 78),
        (Preempted("later"), 75),
        (Diverged("up"), 77),
        (OSError(28, "No space left on device"), 74),
    ],
)
def test_exit_codes(capsys, command, error, code):
    def act():
        raise error

    command.act = act
    refused(capsys, "try", code=code)


@pytest.mark.parametrize(
    "error, said",
    [
        (OSError(28, "No space left on device", "runs/a"), "runs/a: No space left on device"),
        (OSError(18, "Cross-device link", "a", None, "b"), "a -> b: Cross-device link"),
        (shutil.SameFileError("a and b are one"), "a and b are one"),
    ],
)
def test_failures_of_files_name_them_without_numbers(capsys, command, error, said):
    def act():
        raise error

    command.act = act
    assert refused(capsys, "try", code=74) == f"error: {said}\n"


def test_a_package_that_is_not_there(capsys, command):
    command.act = lambda: importlib.import_module("package_that_nobody_has")
    assert "make env" in refused(capsys, "try")


def test_an_extra_is_named_that_is_not_there(capsys, command, monkeypatch):
    """`make env` alone does not bring lm-eval."""

    def act():
        raise ModuleNotFoundError("No module named 'lm_eval'", name="lm_eval")

    command.act = act
    assert refused(capsys, "try").endswith(
        "no package lm_eval; run `make env EXTRA=lm-eval` and use .venv/bin/python\n"
    )


def test_traceback_only_with_debug(capsys, command):
    def act():
        raise UserError("two\nlines")

    command.act = act
    assert "Traceback" not in refused(capsys, "try")
    assert main(["try", "--debug"]) == 78
    assert "Traceback" in capsys.readouterr().err


def test_json_is_one_object_and_nothing_else(capsys, command):
    def act():
        print("chatter")
        return {"loss": 1.5, "bad": float("nan"), "deep": [{"worse": float("-inf")}], "wrote": ["x"], "next": "y"}

    command.act = act
    assert main(["try", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out, parse_constant=pytest.fail) == {
        "loss": 1.5, "bad": None, "deep": [{"worse": None}], "wrote": ["x"], "next": "y"
    }  # fmt: skip
    assert out.count("\n") == 1 and err == "chatter\n"


def test_json_takes_scalars_of_arrays(capsys, command):
    import numpy as np

    command.act = lambda: {"loss": np.float32(2), "steps": np.int64(3)}
    assert main(["try", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"loss": 2.0, "steps": 3}


def test_closing_lines(capsys, command):
    command.act = lambda: {"wrote": ["runs/x/report.md"], "next": "do that", "exit_code": 78}
    assert main(["try"]) == 78
    assert capsys.readouterr().out == "wrote runs/x/report.md\nnext: do that\n"


WITH_COMMAND = """
import os, sys, types
from chinchilla_jax.__main__ import COMMANDS, main
module = types.ModuleType("chinchilla_jax.commands.try")
module.SECTIONS, module.options = (), lambda parser: None
def run(config, args):
    {}
    return {{"loss": 1.5}}
module.run, COMMANDS["try"], sys.modules[module.__name__] = run, "", module
code = main(["try", *sys.argv[1:]])
print("after")
sys.exit(code)
"""


def test_json_is_pure_where_other_languages_write(monkeypatch):
    result = fresh(
        "-c", WITH_COMMAND.format("print('python'); os.write(1, b'c++\\n'); os.system('echo shell')"), "--json"
    )
    said = result.stdout.splitlines()
    assert json.loads(said[0]) == {"loss": 1.5} and said[1:] == ["after"]
    assert sorted(result.stderr.split()) == ["c++", "python", "shell"]


def test_of_many_processes_the_first_reports(command, capsys, monkeypatch):
    command.act = lambda: {"loss": 1.5, "next": "y"}
    for index, said in ((0, '{"loss": 1.5, "next": "y"}\n'), (1, "")):
        distributed = types.SimpleNamespace(is_initialized=lambda: True)
        jax = types.SimpleNamespace(distributed=distributed, process_index=lambda index=index: index)
        monkeypatch.setitem(sys.modules, "jax", jax)
        assert main(["try", "--json"]) == 0
        assert capsys.readouterr().out == said


def test_what_fails_halfway_is_not_in_the_way_of_the_next_try(tmp_path):
    for error in (StorageError, KeyboardInterrupt):
        with pytest.raises(error), cli.whole(cli.fresh(str(tmp_path / "out"), "--out")):
            (tmp_path / "out" / "checkpoints").mkdir(parents=True)
            raise error
    assert list(tmp_path.iterdir()) == []
