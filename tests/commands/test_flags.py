"""Flags: every setting of a command, values as they are typed, and one line for every mistake."""

import pytest

from chinchilla_jax import config as settings
from chinchilla_jax.__main__ import main
from chinchilla_jax.commands import flags
from tests.commands.conftest import refused


def test_every_documented_setting_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--config", "--run-dir", "--json", "--deep", "--train.compile-cache"))


def test_defaults_are_shown_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "[shakespeare]" in said and "[false]" in said and "such as chinchilla-44m [empty]" in said
    assert "[()]" not in said and "['']" not in said


@pytest.mark.parametrize(
    "argv, hint",
    [
        (["--train.stepz", "5"], "did you mean --train.steps?"),
        (["--promt", "5"], "did you mean --prompt?"),
        (["--optimizer.peak-lr", "5"], "no setting of this command"),
        (["--train.rows", "5"], "unknown option --train.rows; see"),
        (["--train.batch", "5"], "did you mean --train.batch-size or --train.batch-ramp?"),
        (["--seed", "5"], "did you mean --data.seed or --train.seed?"),
        (["stray"], "unknown option stray"),
        (["--train.steps"], "expected one argument"),
        (["--train.batch-size", "many"], "--train.batch-size: expected a whole number, found 'many'"),
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


@pytest.mark.parametrize("flag", ["--data-dir", "--data_dir", "--data.data-dir"])
def test_data_dir_has_a_short_name(command, flag):
    assert main(["try", flag, "/tfds"]) == 0
    assert command.seen[0].data.data_dir == "/tfds"


@pytest.mark.parametrize("text, ids", [("3", (3,)), ("0,1,2", (0, 1, 2)), ("[4, 5]", (4, 5)), ("auto", None)])
def test_a_list_of_ids_may_be_one_number(text, ids):
    assert settings.check(tuple[int, ...] | None, flags._value(tuple[int, ...] | None, text), "special") == ids
