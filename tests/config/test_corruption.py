"""Input tokens that are replaced: what goes with what, and when a slope of the loss is needed."""

import pytest

from chinchilla_jax.config import CorruptionConfig
from tests.config.refusals import refused


@pytest.mark.parametrize("settings, hint", [
    ({"share": 1.1}, "[0, 1]"), ({"copies": -0.1}, "[0, 1]"), ({"ramp": 2.0}, "[0, 1]"),
    ({"start": 0.5, "stop": 0.5}, "in order"), ({"candidates": 0, "kind": "gradient"}, "at least 1"),
    ({"candidates": 8}, "--corruption.candidates goes with --corruption.kind gradient"),
    ({"mask_piece": 3}, "--corruption.mask-piece goes with --corruption.kind mask"),
    ({"weight": 0.5}, "--corruption.weight goes with --corruption.copies above 0"),
])  # fmt: skip
def test_bad_values_are_refused_in_one_line(settings, hint):
    refused({f"corruption.{name}": value for name, value in settings.items()}, hint)


def test_copies_do_not_stand_beside_an_altered_main_pass():
    beside = {"adversarial.method": "pgd", "corruption.share": 0.1}
    refused(beside | {"corruption.copies": 0.5}, "set --corruption.copies 0")


def test_a_slope_is_needed_for_replacements_by_gradient_alone():
    assert CorruptionConfig(share=0.1, kind="gradient").slopes
    assert not CorruptionConfig(kind="gradient").slopes and not CorruptionConfig(share=0.1).slopes
