"""The program: the list of its commands, fast help, and a command that is none."""

import importlib.util
import json

import pytest

from chinchilla_jax import __version__
from chinchilla_jax.__main__ import COMMANDS, main
from tests.commands.conftest import refused
from tests.runs import fresh

BUILT = [name for name in COMMANDS if importlib.util.find_spec(f"chinchilla_jax.commands.{name}")]
HEAVY = {"jax", "numpy", "flax", "optax", "orbax", "sentencepiece", "tensorflow_datasets", "matplotlib", "rich"}

# The help of every command in one interpreter, each with its exit code, its text, and the modules loaded by then.
HELP = """
import contextlib, io, json, sys
from chinchilla_jax.__main__ import main
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            code = main([*words, "--help"])
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([words, code, said.getvalue(), sorted({m.split(".")[0] for m in sys.modules})]))
"""
EVERY = [[], *([name] for name in BUILT)]


@pytest.fixture(scope="module")
def helped():
    """Exit code, text and modules by command."""
    result = fresh("-c", HELP, json.dumps(EVERY))
    assert result.returncode == 0, result.stderr
    return {" ".join(words): rest for words, *rest in map(json.loads, result.stdout.splitlines())}


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_help_imports_nothing_heavy(command, helped):
    code, said, modules = helped[" ".join(command)]
    assert code == 0 and "--" in said and not set(modules) & HEAVY


def test_help_names_every_command(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


def test_version_and_help_as_words(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"chinchilla_jax {__version__}\n"
    assert main(["help"]) == 0 and capsys.readouterr().out.startswith("usage:")


def test_unknown_command(capsys):
    assert "did you mean doctor?" in refused(capsys, "docter")


def test_as_a_program():
    result = fresh("-m", "chinchilla_jax", "docter", "--json")
    assert (result.returncode, result.stdout) == (78, "") and result.stderr.count("\n") == 1
