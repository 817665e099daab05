"""How settings are checked, read from a dict, changed by dotted names and told apart."""

import json

import pytest

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.errors import UserError
from tests.config.refusals import refused

BAD = [
    ("model.positions", "rop", "did you mean rope?"),
    ("model.biases", "yes", "true or false"),
    ("data.sources", "shakespeare", "expected a list"),
    ("optimizer.peak_lr", float("nan"), "--optimizer.peak-lr: expected a finite"),
    ("optimizer.peak_lr", float("inf"), "finite"),
    ("train.steps", "5", "whole number"),
    ("train.steps", 5.0, "whole number"),
    ("train.steps", True, "whole number"),
    ("train.batch_ramp", ((10,),), "expected 2 entries"),
    ("checkpoint.verify", "none", "none of size, hash, full"),
    ("train.stepz", 5, "did you mean steps?"),
    ("trian.steps", 5, "did you mean train?"),
]


@pytest.mark.parametrize("path, value, hint", BAD)
def test_bad_values_are_refused_in_one_line(path, value, hint):
    refused({path: value}, hint)


def test_a_choice_left_to_the_program_is_none():
    """AUTO is how the command line writes it; what is chosen is checked like any other."""
    assert settings.replace(Config(), {"sparsity.start": "auto"}).sparsity.start is None
    assert settings.replace(Config(), {"sparsity.start": 0}).sparsity.start == 0.0
    refused({"sparsity.start": "soon"}, "--sparsity.start: expected a number, found 'soon'")
    kinds = (int, float | None, tuple[str, ...], tuple[int, ...] | None)
    assert [settings.describe_type(kind) for kind in kinds] == ["INT", "FLOAT", "LIST", "N,N,..."]


def test_home_folders_are_written_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/of-mine")
    assert settings.expanded("~/a") == "/home/of-mine/a" and settings.expanded("a~/b") == "a~/b"
    with pytest.raises(UserError, match="no home folder ~nobody_of_that_name here"):
        settings.expanded("~nobody_of_that_name/a")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody_of_that_name").touch()
    assert settings.expanded("~nobody_of_that_name") == "~nobody_of_that_name", "a file of that name"


def test_a_dotted_setting_is_read():
    assert settings.get(Config(), "data.near.words") == 3 and settings.get(Config(), "train") == TrainConfig()


ODD = Config(
    model=ModelConfig(layers=2, kv_heads=2, positions="relative", dtype="bfloat16"),
    data=DataConfig(sources=("a b", "tfds:x/y:train")),
    optimizer=OptimizerConfig(peak_lr=1e-3, schedule="wsd"),
    train=TrainConfig(batch_ramp=((10, 16), (20, 32)), microbatches=2),
    mesh=MeshConfig(data=2, fsdp=-1),
)


@pytest.mark.parametrize("config", [Config(), ODD])
def test_round_trip_through_json(config):
    back = settings.from_dict(Config, json.loads(json.dumps(settings.to_dict(config))))
    assert back == config and hash(back) == hash(config)


def test_missing_keys_keep_their_defaults():
    assert settings.from_dict(Config, {"train": {"steps": 500}}) == settings.replace(Config(), {"train.steps": 500})


@pytest.mark.parametrize(
    "values", [{"trian": {}}, {"train": {"stepz": 1}}, {"train": 5}, [], {"train": {"steps": None}}]
)
def test_wrong_tables_are_refused(values):
    with pytest.raises(UserError):
        settings.from_dict(Config, values)


def test_replace_changes_only_what_is_named():
    changed = settings.replace(ODD, {"train.steps": 700, "model.d_model": 128, "optimizer.peak_lr": 1})
    assert (changed.train.steps, changed.model.d_model, changed.optimizer.peak_lr) == (700, 128, 1.0)
    assert changed.data == ODD.data and changed.train.batch_ramp == ODD.train.batch_ramp
    assert type(changed.optimizer.peak_lr) is float


def test_replace_may_pass_through_states_that_do_not_hold():
    """Two settings that hold only together are changed together, whatever their order."""
    both = {"train.batch_size": 12, "train.microbatches": 3}
    assert settings.replace(Config(), both).train.microbatches == 3
    steps = settings.replace(Config(), {"optimizer.warmup_steps": 5, "train.steps": 10})
    assert steps == settings.replace(Config(), {"train.steps": 10, "optimizer.warmup_steps": 5})


def test_differences():
    new = settings.replace(ODD, {"train.steps": 700, "mesh.data": 4})
    found = settings.differences(settings.to_dict(ODD), settings.to_dict(new))
    assert found == {"mesh.data": (2, 4), "train.steps": (1000, 700)}
    assert settings.differences(settings.to_dict(ODD), settings.to_dict(ODD)) == {}
    assert settings.differences({}, {"a": 1}) == {"a": (None, 1)}


def test_closest():
    assert settings.closest("stpes", ["steps", "seed"]) == " (did you mean steps?)"
    assert settings.closest("xyz", ["steps"]) == ""
