"""The command line as a user meets it: fast help, one-line errors with exit code 78, pure JSON."""

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from chinchilla_jax.__main__ import COMMANDS, main
from chinchilla_jax.commands import cli
from chinchilla_jax.errors import Diverged, Preempted, UserError
from chinchilla_jax.model import presets

ROOT = Path(__file__).resolve().parent.parent
BUILT = [name for name in COMMANDS if importlib.util.find_spec(f"chinchilla_jax.commands.{name}")]
HEAVY = {"jax", "numpy", "flax", "optax", "orbax", "sentencepiece", "tensorflow_datasets", "matplotlib", "rich"}

WITH_MODULES = """
import sys
from chinchilla_jax.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("MODULES", *{m.split(".")[0] for m in sys.modules})
sys.exit(code)
"""


def fresh(*arguments: str) -> subprocess.CompletedProcess:
    """A command in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("command", [[], *([name] for name in BUILT)], ids=" ".join)
def test_help_imports_nothing_heavy(command):
    result = fresh("-c", WITH_MODULES, *command, "--help")
    assert result.returncode == 0, result.stderr
    said, _, modules = result.stdout.partition("MODULES")
    assert "--" in said and not set(modules.split()) & HEAVY


def test_help_names_every_command(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


def test_every_documented_setting_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--config", "--run-dir", "--json", "--deep", "--train.compile-cache"))


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


def test_unknown_command(capsys):
    assert "did you mean doctor?" in refused(capsys, "docter")


@pytest.mark.parametrize(
    "argv, hint",
    [
        (["--train.stepz", "5"], "did you mean --train.steps?"),
        (["--promt", "5"], "did you mean --prompt?"),
        (["--optimizer.peak-lr", "5"], "no setting of this command"),
        (["stray"], "unknown option stray"),
        (["--train.steps"], "expected one argument"),
        (["--train.steps", "many"], "expected a whole number, found 'many'"),
        (["--train.steps", "1.5"], "whole number"),
        (["--train.steps", "0"], "at least 1"),
        (["--model.biases", "perhaps"], "true or false"),
        (["--model.positions", "roap"], "did you mean rope?"),
        (["--model.norm-eps", "nan"], "finite"),
        (["--model.preset", "chinchila-70b"], "did you mean chinchilla-70b?"),
        (["--train.batch-ramp", "((5,"], "expected a list"),
        (["--config", "configs/none.py"], "no such config file"),
        (["--config", "configs"], "no such config file"),
    ],
)
def test_mistakes_are_one_line(capsys, command, argv, hint):
    assert hint in refused(capsys, "try", *argv)
    assert not command.seen


TRAIN = "from chinchilla_jax.config import *\ndef config(): return Config(train=TrainConfig({}))"


@pytest.mark.parametrize(
    "name, text, hint",
    [
        ("c.py", "def config(:", "SyntaxError"),
        ("c.py", "import nothing_of_that_name", "ModuleNotFoundError"),
        ("c.py", "x = 1", "define a function config()"),
        ("c.py", "def config(): return 5", "config() returned int, not Config"),
        ("c.py", "def config(): return 1 / 0", "ZeroDivisionError"),
        ("c.py", TRAIN.format("stepz=1"), "stepz"),
        ("c.py", TRAIN.format("steps=0"), "--train.steps"),
        ("c.py", TRAIN.format("seed=1.5"), "train.seed"),
        ("c.json", "{", "JSONDecodeError"),
        ("c.json", "\x00\xff", "c.json"),
        ("c.json", "[]", "expected a table"),
        ("c.json", '{"train": {"stepz": 5}}', "did you mean steps?"),
        ("c.json", '{"train": {"steps": null}}', "whole number"),
    ],
)  # fmt: skip
def test_broken_config_files_are_one_line(capsys, command, tmp_path, name, text, hint):
    path = tmp_path / name
    path.write_text(text, encoding="latin-1")
    said = refused(capsys, "try", "--config", str(path))
    assert hint in said and name in said


def test_corrupt_config_of_a_run_directory(capsys, command, tmp_path):
    (tmp_path / "config.json").write_text('{"train": ')
    assert "config.json" in refused(capsys, "try", "--run-dir", str(tmp_path))


def test_settings_reach_the_command(command):
    flags = ["--train.batch_size", "16", "--train.seq-len=64", "--data.sources", "a.txt", "b", "--model.biases", "True"]
    assert main(["try", *flags, "--train.profile-start", "-1", "--train.batch_ramp", "((5, 32),)"]) == 0
    [seen] = command.seen
    assert (seen.train.batch_size, seen.train.seq_len, seen.train.batch_ramp) == (16, 64, ((5, 32),))
    assert seen.data.sources == ("a.txt", "b") and seen.model.biases is True


def test_order_file_preset_flags(command, tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"model": {"layers": 3}, "train": {"steps": 200}}')
    assert main(["try", "--config", str(path), "--model.preset", "chinchilla-44m", "--model.d-ff", "1024"]) == 0
    [seen] = command.seen
    assert seen.train.steps == 200
    assert seen.model == presets.preset("chinchilla-44m", d_ff=1024)


def test_run_directory_remembers(command, tmp_path):
    (tmp_path / "config.json").write_text('{"train": {"steps": 321}}')
    assert main(["try", "--run-dir", str(tmp_path)]) == 0
    assert command.seen[0].train.steps == 321


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


def test_a_package_that_is_not_there(capsys, command):
    command.act = lambda: importlib.import_module("package_that_nobody_has")
    assert "make env" in refused(capsys, "try")


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


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_configs_load_and_say_their_command(path):
    cli.load(path)
    assert "python -m chinchilla_jax pretrain" in path.read_text()


def test_as_a_program():
    result = fresh("-m", "chinchilla_jax", "docter", "--json")
    assert (result.returncode, result.stdout) == (78, "") and result.stderr.count("\n") == 1
