"""Examples and what is made of them."""

import pytest

from chinchilla_jax.config import TaskConfig
from tests.config.refusals import refused


@pytest.mark.parametrize("settings, hint", [
    ({"swap": 1.0}, "--task.swap 1.0 must lie in [0, 1)"), ({"stride": -1}, "--task.stride must not be negative"),
    ({"valid_fraction": 0.0}, "needs --task.valid FILE"), ({"epochs": 0.0}, "positive"), ({"beam": 0}, "1 is greedy"),
    ({"smoothing": 0.5}, "[0, 0.5)"), ({"smoothing": 0.1, "preference": "ipo"}, "belongs to --task.preference sigmoid"),
    ({"reference": "stored", "sampling": 0.1}, "leave augmentation off"), ({"kind": "label"}, "did you mean labels?"),
    ({"labels": ("a", "b", "a")}, "--task.labels has a twice"),
    ({"conversation": "talk", "only": ("a",)}, "tear holes into a --task.conversation"),
    ({"conversation": "talk", "source": "bidirectional"}, "also show what comes after"),
])  # fmt: skip
def test_bad_values_are_refused_in_one_line(settings, hint):
    refused({f"task.{name}": value for name, value in settings.items()}, hint)


def test_inputs_in_both_directions_need_positions_that_have_them():
    refused({"task.source": "bidirectional", "model.positions": "relative"}, "positions in both directions")


def test_which_settings_augment():
    assert not TaskConfig(train=("a",)).augmented and TaskConfig(valid_fraction=0.0, valid=("b",)).valid == ("b",)
    assert all(TaskConfig(**{name: 0.1}).augmented for name in ("sampling", "deletion", "swap", "replacement"))
