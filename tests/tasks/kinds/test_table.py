"""The table of kinds of task: its figures, and which of them chooses."""

import dataclasses
from typing import get_args

from chinchilla_jax.config.task import TaskConfig
from chinchilla_jax.tasks.kinds.table import KINDS


def test_the_settings_know_every_kind():
    [field] = [field for field in dataclasses.fields(TaskConfig) if field.name == "kind"]
    assert set(get_args(field.type)) == {"auto", *KINDS} and all(name == kind.name for name, kind in KINDS.items())
