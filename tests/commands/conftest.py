"""A command of the tests, and how a command line is refused."""

import sys
import types

import pytest

from chinchilla_jax.__main__ import COMMANDS, main


def refused(capsys, *argv: str, code: int = 78) -> str:
    """The one line on standard error with which a command line is refused."""
    assert main(list(argv)) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, (out, err)
    return err


@pytest.fixture
def command(monkeypatch):
    """A command `try` that hands its config over, or does what the test tells it to."""
    module = types.ModuleType("chinchilla_jax.commands.try")
    module.SECTIONS, module.seen, module.act = ("model", "data", "train"), [], lambda: {}
    module.options = lambda parser: parser.add_argument("--prompt", default="")

    def run(config, args):
        module.seen.append(config)
        return module.act()

    module.run = run
    monkeypatch.setitem(COMMANDS, "try", "a command of the tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module
