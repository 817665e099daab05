"""The command line as a user meets it: fast help, one-line errors with exit code 78, pure JSON."""

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from chinchilla_jax import config as settings
from chinchilla_jax.__main__ import COMMANDS, main
from chinchilla_jax.commands import cli, config_files, hints
from chinchilla_jax.config import Config
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
        (["--run-dir", "s3://bucket/run"], "local folders"),
        (["--train.seed", "-1"], "--train.seed"),
        (["--train.sample-prompt", "caf\udce9"], "no UTF-8 text"),
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
        ("c.py", "from chinchilla_jax.config import *\ndef config(): return Config(ModelConfig('modern'))", "preset"),
        ("c.json", '{"model": {"preset": "modern-2b"}}', "did you mean modern-"),
        ("c.json", '{"model": {"preset": ["modern-1b"]}}', "c.json"),
        ("c.json", "{", "JSONDecodeError"),
        ("c.json", "\x00\xff", "c.json"),
        ("c.json", "[]", "expected a table"),
        ("c.json", '{"train": {"stepz": 5}}', "did you mean steps?"),
        ("c.json", '{"train": {"steps": null}}', "whole number"),
        ("c.json", '{"train": {"steps": 5, "seed": 1, "steps": 6}}', "steps: there more than once"),
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


@pytest.mark.parametrize("value", ["-- select my_col from a_table", "--a_b c", "--run_dir is a flag", "-1", "", "~"])
def test_values_come_through_as_they_are(command, value):
    said = []
    command.options = lambda parser: parser.add_argument("--prompt", default="")
    command.run = lambda config, args: said.append(args.prompt) or {}
    assert main(["try", f"--prompt={value}"]) == 0
    assert main(["try", "--prompt", value]) == 0 if not value.startswith("--") or " " in value else True
    assert set(said) == {value}


def test_a_value_that_begins_with_a_dash_gets_the_fix(capsys, command):
    assert "write --prompt=VALUE" in refused(capsys, "try", "--prompt", "--verbose")
    assert "write --data-dir=VALUE" in refused(capsys, "try", "--data.data_dir", "-x")


def test_home_folders_in_paths(capsys, command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    command.run = lambda config, args: seen.append((config, args)) or {}
    assert main(["try", "--run-dir=~/run", "--data.store=~/st", "--data-dir=~/d", "--train.compile-cache=~/c"]) == 0
    [(config, args)] = seen
    assert args.run_dir == f"{tmp_path}/run" and config.data.store == f"{tmp_path}/st"
    assert (config.data.data_dir, config.train.compile_cache) == (f"{tmp_path}/d", f"{tmp_path}/c")
    assert "no home folder ~nobody_of_that_name" in refused(capsys, "try", "--run-dir=~nobody_of_that_name/x")


def test_a_config_imports_what_lies_beside_it(command, tmp_path):
    for name, value in (("one", 300), ("two", 400)):
        folder = tmp_path / name
        (folder / "family").mkdir(parents=True)
        (folder / "family/__init__.py").write_text("from family.size import V")
        (folder / "family/size.py").write_text(f"V = {value}")
        text = "from family import V\nfrom chinchilla_jax.config import *\n"
        (folder / "c.py").write_text(text + "def config(): return Config(data=DataConfig(vocab_size=V))")
        assert main(["try", "--config", str(folder / "c.py")]) == 0
    assert [seen.data.vocab_size for seen in command.seen] == [300, 400] and "family" not in sys.modules


def test_a_config_with_a_byte_order_mark(command, tmp_path):
    (tmp_path / "c.json").write_bytes(b'\xef\xbb\xbf{"train": {"sample_prompt": "na\xc3\xafve"}}')
    assert main(["try", "--config", str(tmp_path / "c.json")]) == 0
    assert command.seen[0].train.sample_prompt == "naïve"


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


@pytest.mark.parametrize("path", sorted(config_files.CONFIGS.glob("[!_]*.py")), ids=lambda p: p.stem)
def test_configs_load_and_say_their_command(path):
    assert (
        config_files.load(path) == config_files.load(Path(path.stem)) == config_files.load(Path("configs", path.name))
    )
    assert "python -m chinchilla_jax" in path.read_text()


def test_as_a_program():
    result = fresh("-m", "chinchilla_jax", "docter", "--json")
    assert (result.returncode, result.stdout) == (78, "") and result.stderr.count("\n") == 1


def test_a_preset_in_a_json_file_gives_the_shape_below_what_the_file_says(command, tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"model": {"preset": "chinchilla-70b", "d_ff": 1024, "dropout": 0.1}}')
    assert main(["try", "--config", str(path)]) == 0
    assert command.seen[0].model == presets.preset("chinchilla-70b", d_ff=1024, dropout=0.1)


def test_the_full_settings_of_a_run_stay_as_they_are(command, tmp_path):
    model = presets.preset("chinchilla-44m", layers=4, heads=4, d_ff=1000)
    (tmp_path / "config.json").write_text(json.dumps(settings.to_dict(Config(model=model))))
    assert main(["try", "--run-dir", str(tmp_path)]) == 0
    assert command.seen[0].model == model


MODEL = """
from chinchilla_jax.config import Config, ModelConfig
from chinchilla_jax.model.presets import preset
def config(): return Config(model={})
"""


@pytest.mark.parametrize(
    "made, model",
    [
        ('ModelConfig(preset="chinchilla-70b")', presets.preset("chinchilla-70b")),
        ('ModelConfig(preset="chinchilla-70b", dropout=0.1)', presets.preset("chinchilla-70b", dropout=0.1)),
        ('ModelConfig(preset="chinchilla-70b", vocab_size=99)', presets.preset("chinchilla-70b", vocab_size=99)),
        ('preset("modern-8b")', presets.preset("modern-8b")),
        ('preset("modern-8b", layers=4, rope_theta=1e4)', presets.preset("modern-8b", layers=4, rope_theta=1e4)),
        ("ModelConfig(layers=5)", settings.ModelConfig(layers=5)),
    ],
)
def test_a_preset_in_a_python_file(command, tmp_path, made, model):
    path = tmp_path / "c.py"
    path.write_text(MODEL.format(made))
    assert main(["try", "--config", str(path)]) == 0
    assert command.seen[0].model == model


def test_the_store_of_a_text_is_named_after_it(command):
    assert main(["try"]) == main(["try", "--data.sources", "novels/emma.txt"]) == 0
    assert main(["try", "--data.sources", "novels/emma.txt", "--data.store", "s"]) == 0
    assert [seen.data.store for seen in command.seen] == ["data/shakespeare", "data/emma", "s"]


@pytest.mark.parametrize("flag", ["--data-dir", "--data_dir", "--data.data-dir"])
def test_data_dir_has_a_short_name(command, flag):
    assert main(["try", flag, "/tfds"]) == 0
    assert command.seen[0].data.data_dir == "/tfds"


class JaxRuntimeError(RuntimeError):
    """Named as JAX names its own."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.\nand a long table"),
        JaxRuntimeError("INTERNAL: CUDA: Out of memory"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_out_of_memory_names_the_mends(capsys, error, wrapped):
    def act():
        if not wrapped:
            raise error
        raise ValueError("checkpoint") from error

    module = types.SimpleNamespace(SECTIONS=(), options=lambda parser: None, run=lambda config, args: act())
    assert cli.run("pretrain", "", module, []) == 78
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--train.microbatches" in said and "--model.remat full" in said


def test_other_errors_of_xla_keep_their_traceback(command):
    command.act = lambda: (_ for _ in ()).throw(JaxRuntimeError("INTERNAL: a bug"))
    with pytest.raises(JaxRuntimeError):
        main(["try"])


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


@pytest.mark.parametrize("platform", ["cuda", "tpu", "nothing"])
def test_devices_that_do_not_start_are_one_line(platform, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    result = fresh("-c", WITH_COMMAND.format("import jax; jax.devices()"))
    assert result.returncode == 78 and "doctor" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_memory_that_no_machine_has(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    result = fresh("-c", WITH_COMMAND.format("import jax; jax.numpy.zeros(1 << 46).block_until_ready()"))
    assert result.returncode == 78 and "out of memory" in result.stderr and "Traceback" not in result.stderr


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
