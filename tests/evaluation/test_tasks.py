"""Figures of validation against scikit-learn, and which of them chooses."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation.tasks import FIGURES, METRICS, classified, lower_is_better, metric_of


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
    assert all(METRICS[kind] in figures for kind, figures in FIGURES.items())
    assert metric_of("labels", "auto") == "valid_accuracy" and metric_of("chat", "valid_exact") == "valid_exact"
    assert lower_is_better("valid_loss") and not lower_is_better("valid_accuracy")
    with pytest.raises(UserError, match="did you mean accuracy"):
        metric_of("labels", "acuracy")
