"""All sections together: frozen, with their help, and what one says of another."""

import dataclasses

import pytest

from chinchilla_jax.config import Config
from tests.config.refusals import refused


def test_sections_that_hold_only_together():
    refused({"optimizer.warmup_steps": 5000}, "--train.steps")


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.steps = 5


def test_every_setting_has_its_help():
    for section in dataclasses.fields(Config):
        for item in dataclasses.fields(section.type):
            assert item.metadata["help"], f"{section.name}.{item.name}"
