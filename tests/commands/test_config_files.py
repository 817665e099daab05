"""Configs from files, run directories and presets, in their order, and one line for every broken file."""

import argparse
import json
import sys
from pathlib import Path

import pytest

from chinchilla_jax import config as settings
from chinchilla_jax.__main__ import main
from chinchilla_jax.commands import config_files
from chinchilla_jax.config import Config
from chinchilla_jax.model import presets
from tests.commands.conftest import refused

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


@pytest.mark.parametrize("path", sorted(config_files.CONFIGS.glob("[!_]*.py")), ids=lambda p: p.stem)
def test_configs_load_and_say_their_command(path):
    assert (
        config_files.load(path) == config_files.load(Path(path.stem)) == config_files.load(Path("configs", path.name))
    )
    assert "python -m chinchilla_jax" in path.read_text()


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
        ('ModelConfig(preset="modern-150m", layers=12, d_ff=99)', presets.preset("modern-150m", d_ff=99)),
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


def test_another_text_than_that_of_a_config_has_a_store_of_its_own(command, tmp_path):
    """Such as that of a plan.json, which names every setting; the text and the store that it names stay together."""
    path = tmp_path / "plan.json"
    path.write_text('{"config": {"data": {"sources": ["shakespeare"], "store": "data/shakespeare"}}}')
    line = ["try", "--config", str(path)]
    for more in ([], ["shakespeare"], ["novels/emma.txt"], ["novels/emma.txt", "--data.store", "s"]):
        assert main([*line, *(["--data.sources", *more] if more else [])]) == 0
    found = ["data/shakespeare", "data/shakespeare", "data/emma", "s"]
    assert [seen.data.store for seen in command.seen] == found


def test_a_received_config_chooses_no_compile_cache(tmp_path, capsys):
    """What is in the cache is executed."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"train": {"compile_cache": str(tmp_path / "theirs")}}))
    assert config_files.load(path).train.compile_cache == "" and "is ignored" in capsys.readouterr().err


def test_a_default_of_the_command_is_nothing_that_the_file_says():
    """It holds where the file is silent; who asks what was said hears of the file alone."""
    args = argparse.Namespace(config="tasks/uci_sentences", run_dir="", defaults={"optimizer.warmup_steps": 0})
    config = config_files.resolve(args)
    assert config.optimizer.warmup_steps == 0 and "optimizer.warmup_steps" not in args.told
    assert {"optimizer.weight_decay", "tune.method", "tune.rank"} <= args.told
