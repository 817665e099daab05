"""Figures of validation against scikit-learn, and which of them chooses."""

import dataclasses
from typing import get_args

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from chinchilla_jax.config.task import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds.labels import classified
from chinchilla_jax.tasks.kinds.table import KINDS


@pytest.mark.parametrize("seed", range(20))
def test_classification_agrees_with_scikit_learn(seed):
    """Labels that are only predicted count 0, those that are nowhere are left out."""
    draw = np.random.default_rng(seed)
    labels, n = int(draw.integers(2, 8)), int(draw.integers(1, 40))
    right, chosen = (draw.integers(0, labels, n) for _ in range(2))
    found = classified(right, chosen, labels + 2)
    assert found["accuracy"] == pytest.approx(accuracy_score(right, chosen), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(f1_score(right, chosen, average="macro"), abs=1e-12)


def test_metrics_are_named_and_directed():
    assert all(kind.metric in kind.figures and "loss" in kind.figures for kind in KINDS.values())
    labels, chat = KINDS["labels"], KINDS["chat"]
    assert labels.metric_of("auto") == "valid_accuracy" and chat.metric_of("valid_exact") == "valid_exact"
    assert labels.lower_is_better("valid_loss") and not labels.lower_is_better("valid_accuracy")
    with pytest.raises(UserError, match="did you mean accuracy"):
        labels.metric_of("acuracy")


def test_the_settings_know_every_kind():
    [field] = [field for field in dataclasses.fields(TaskConfig) if field.name == "kind"]
    assert set(get_args(field.type)) == {"auto", *KINDS} and all(name == kind.name for name, kind in KINDS.items())
