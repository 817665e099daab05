"""Figures of classification against scikit-learn, 1,000 random cases each."""

import numpy as np
import pytest
from sklearn import metrics as sk

from chinchilla_jax.tasks.metrics import classes


def test_one_label_a_record():
    """Labels that are only predicted count 0, those that are nowhere are left out."""
    for seed in range(1000):
        draw = np.random.default_rng(seed)
        labels, n = int(draw.integers(2, 8)), int(draw.integers(1, 40))
        reference, output = (draw.integers(0, 1 if seed % 50 == 0 else labels, n) for _ in range(2))
        found = classes.single(reference, output, labels + 2)
        assert found["accuracy"] == (reference == output).mean()
        each = sk.f1_score(reference, output, average=None, zero_division=0)
        support = [(reference == label).sum() for label in np.union1d(reference, output)]
        assert found["macro_f1"] == pytest.approx(each.mean(), abs=1e-12)
        assert found["weighted_f1"] == pytest.approx(np.average(each, weights=support), abs=1e-12)
        assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(reference, output), abs=1e-12)


def test_several_labels_a_record_and_their_threshold():
    for seed in range(1000):
        draw = np.random.default_rng(seed)
        shape = int(draw.integers(1, 30)), int(draw.integers(2, 7))  # of one column scikit-learn makes two labels
        reference, p = draw.random(shape) < draw.random(), np.round(draw.random(shape), 2)
        found = classes.several(reference, p >= 0.5)
        for name in ("micro", "macro"):
            expected = sk.f1_score(reference, p >= 0.5, average=name, zero_division=0)
            assert found[f"{name}_f1"] == pytest.approx(expected, abs=1e-12), seed
        assert found["equal"] == pytest.approx((reference == (p >= 0.5)).all(1).mean(), abs=1e-12)
        if seed < 50:
            best = max(classes.several(reference, p >= t / 100)["micro_f1"] for t in range(1, 100))
            tuned = classes.several(reference, p >= classes.threshold(reference, p))["micro_f1"]
            assert tuned == pytest.approx(best, abs=1e-12)


def test_calibration_is_the_gap_between_sure_and_right():
    draw = np.random.default_rng(0)
    p = draw.random(20_000)
    assert classes.ece(draw.random(20_000) < p, p) < 0.02
    assert classes.ece(np.array([1, 0, 0, 0]), np.full(4, 0.9)) == pytest.approx(0.65)
    assert classes.ece(np.array([1, 1]), np.array([1.0, 0.5])) == pytest.approx(0.25)
    assert classes.ece(np.zeros(0), np.zeros(0)) == 0.0
