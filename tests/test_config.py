"""Settings: validated on construction, the same after a round trip through JSON, changed by dotted names."""

import dataclasses
import json

import pytest

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import presets

ODD = Config(
    model=ModelConfig(layers=2, kv_heads=2, positions="relative", dtype="bfloat16"),
    data=DataConfig(sources=("a b", "tfds:x/y:train")),
    optimizer=OptimizerConfig(peak_lr=1e-3, schedule="wsd"),
    train=TrainConfig(batch_ramp=((10, 16), (20, 32)), microbatches=2),
    mesh=MeshConfig(data=2, fsdp=-1),
)

BAD = [
    ("model.layers", 0, "--model.layers"),
    ("model.kv_heads", 3, "does not divide"),
    ("model.head_dim", 33, "even"),
    ("model.dropout", 1.0, "[0, 1)"),
    ("model.positions", "rop", "did you mean rope?"),
    ("model.biases", "yes", "true or false"),
    ("data.sources", (), "name a file"),
    ("data.sources", "shakespeare", "expected a list"),
    ("data.vocab_size", 100, "264"),
    ("data.valid_fraction", 0.0, "(0, 1)"),
    ("data.seed", -1, "[0, 2**32)"),
    ("objective.z_loss", -1.0, "negative"),
    ("optimizer.peak_lr", 0.0, "positive"),
    ("optimizer.peak_lr", float("nan"), "finite"),
    ("optimizer.peak_lr", float("inf"), "finite"),
    ("optimizer.b2", 1.0, "[0, 1)"),
    ("optimizer.warmup_steps", 5000, "--train.steps"),
    ("mesh.data", 0, "-1 or at least 1"),
    ("train.steps", "5", "whole number"),
    ("train.steps", 5.0, "whole number"),
    ("train.steps", True, "whole number"),
    ("train.batch_size", 0, "at least 1"),
    ("train.microbatches", 3, "not divisible"),
    ("train.seed", -1, "[0, 2**32)"),
    ("train.seed", 2**32, "[0, 2**32)"),
    ("train.batch_ramp", ((20, 8), (10, 16)), "rising"),
    ("train.batch_ramp", ((10, 12),), "multiple of the microbatch"),
    ("train.batch_ramp", ((10,),), "expected 2 entries"),
    ("checkpoint.keep", 0, "at least 1"),
    ("checkpoint.verify", "none", "none of size, hash, full"),
    ("train.stepz", 5, "did you mean steps?"),
    ("trian.steps", 5, "did you mean train?"),
]


@pytest.mark.parametrize("path, value, hint", BAD)
def test_bad_values_are_refused_in_one_line(path, value, hint):
    with pytest.raises(UserError) as caught:
        settings.replace(Config(), {path: value})
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_one_wildcard_axis_only():
    with pytest.raises(UserError, match="only one"):
        MeshConfig(data=-1, fsdp=-1)


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


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.steps = 5


def test_every_setting_has_its_help():
    for section in dataclasses.fields(Config):
        for item in dataclasses.fields(section.type):
            assert item.metadata["help"], f"{section.name}.{item.name}"


def test_phases():
    assert TrainConfig(batch_ramp=((10, 16),)).phases == ((0, 8), (10, 16))


def test_closest():
    assert settings.closest("stpes", ["steps", "seed"]) == " (did you mean steps?)"
    assert settings.closest("xyz", ["steps"]) == ""


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_are_valid(name):
    assert presets.preset(name).preset == name


def test_unknown_preset():
    with pytest.raises(UserError, match="did you mean chinchilla-70b"):
        presets.preset("chinchila-70b")


def test_config_json_carries_the_version(tmp_path, monkeypatch):
    from chinchilla_jax import __version__
    from chinchilla_jax.config import stored

    made = settings.replace(Config(), {"train.steps": 700, "train.compile_cache": "/somewhere"})
    values = stored.to_json(made)
    assert values["version"] == __version__ and values["train"]["compile_cache"] == ""
    assert stored.from_json(values) == settings.replace(made, {"train.compile_cache": ""})
    newer = values | {"version": "9.0", "train": values["train"] | {"warp": 3}}
    with pytest.raises(UserError, match=r"unknown setting train.warp.*written by chinchilla_jax 9.0 and this is"):
        stored.from_json(newer)
    with pytest.raises(UserError, match=r"unknown setting train.warp$"):
        stored.from_json(newer | {"version": __version__})


def test_a_received_config_chooses_no_compile_cache(tmp_path, capsys):
    """What is in the cache is executed."""
    import json

    from chinchilla_jax.commands import config_files

    path = tmp_path / "config.json"
    path.write_text(json.dumps({"train": {"compile_cache": str(tmp_path / "theirs")}}))
    assert config_files.load(path).train.compile_cache == "" and "is ignored" in capsys.readouterr().err
