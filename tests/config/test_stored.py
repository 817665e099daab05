"""config.json of a run: the version that wrote it, and runs of older programs."""

import pytest

from chinchilla_jax import __version__
from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, stored
from chinchilla_jax.errors import UserError


def test_config_json_carries_the_version():
    made = settings.replace(Config(), {"train.steps": 700, "train.compile_cache": "/somewhere"})
    values = stored.to_json(made)
    assert values["version"] == __version__ and values["train"]["compile_cache"] == ""
    assert stored.from_json(values) == settings.replace(made, {"train.compile_cache": ""})
    newer = values | {"version": "9.0", "train": values["train"] | {"warp": 3}}
    with pytest.raises(UserError, match=r"unknown setting train.warp.*written by chinchilla_jax 9.0 and this is"):
        stored.from_json(newer)
    with pytest.raises(UserError, match=r"unknown setting train.warp$"):
        stored.from_json(newer | {"version": __version__})


def test_an_attack_of_an_older_program_is_said_as_it_was_meant():
    """Before --adversarial.unit the radius was in norms of the table, and auto left rows, loss and start otherwise."""
    old = {"special": [0], "method": "fgm", "radius": 0.2, "fraction": 0.0, "loss": "auto", "init": "auto"}
    found = stored.from_json({"adversarial": old}).adversarial
    assert (found.unit, found.fraction, found.loss, found.init) == ("table", 0.125, "ce", "auto")
    noise = stored.from_json({"adversarial": {**old, "method": "noise"}}).adversarial
    assert (noise.fraction, noise.init) == (1.0, "uniform")
    off = stored.from_json({"adversarial": {**old, "method": "off", "fraction": 0.0}})
    assert off == Config(), "what an attack that is off would have done is nothing"
    new = settings.to_dict(Config())["adversarial"] | {"method": "fgm", "radius": 0.3}
    assert stored.attacked(new) == {} == stored.attacked("off") == stored.attacked({"method": "fgm"})


def test_a_run_keeps_going_whose_settings_did_nothing():
    """Refused of a user, left out of what was written before they were."""
    values = settings.to_dict(Config())
    values["adversarial"] |= {"radius": 0.1, "delayed": True}
    values["corruption"] |= {"copies": 0.5, "weight": 2.0}
    values["sparsity"] |= {"target": 0.9, "pattern": "2:4", "strength": 0.3}
    values["model"] |= {"rope_factor": 8.0}
    values["optimizer"] |= {"decay_fraction": 0.5}
    assert stored.from_json(values) == Config()
    relative = {"model": values["model"] | {"positions": "relative", "rope_scaling": "linear"}}
    assert stored.from_json(relative) == settings.replace(Config(), {"model.positions": "relative"})
    values["optimizer"] |= {"schedule": "constant", "decay_fraction": 1.0}  # the trunk of an older sweep
    assert stored.from_json(values) == settings.replace(Config(), {"optimizer.schedule": "constant"})
    with pytest.raises(UserError, match=r"need an --adversarial\.method"):
        stored.from_json({"adversarial": {"radius": 0.1}})  # written by hand: no program leaves the method out
    used = settings.replace(
        Config(), {"corruption.share": 0.1, "corruption.copies": 0.5, "sparsity.method": "magnitude"}
    )
    assert stored.from_json(stored.to_json(used)) == used
