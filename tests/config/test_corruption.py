"""Input tokens that are replaced: what goes with what, and when a slope of the loss is needed."""

import pytest

from chinchilla_jax.config import Config, CorruptionConfig, replace
from tests.config.refusals import refused


@pytest.mark.parametrize("settings, hint", [
    ({"share": 1.1}, "[0, 1]"), ({"copies": -0.1}, "[0, 1]"), ({"ramp": 2.0}, "[0, 1]"),
    ({"start": 0.5, "stop": 0.5}, "in order"), ({"candidates": 0, "kind": "gradient"}, "at least 1"),
    ({"candidates": 8}, "--corruption.candidates goes with --corruption.kind gradient"),
    ({"mask_piece": 3}, "--corruption.mask-piece goes with --corruption.kind mask"),
    ({"copies": 0.5}, "--corruption.copies goes with --corruption.share above 0"),
    ({"start": 0.6, "ramp": 0.5, "share": 0.1}, "the share is never reached; lower --corruption.ramp"),
    ({"ramp": 0.5, "stop": 0.4, "share": 0.1}, "the share is never reached; lower --corruption.ramp"),
    ({"weight": 0.5}, "--corruption.weight goes with --corruption.copies above 0"),
])  # fmt: skip
def test_bad_values_are_refused_in_one_line(settings, hint):
    refused({f"corruption.{name}": value for name, value in settings.items()}, hint)


def test_copies_do_not_stand_beside_an_altered_main_pass():
    beside = {"adversarial.method": "pgd", "corruption.share": 0.1}
    refused(beside | {"corruption.copies": 0.5}, "set --corruption.copies 0")


def test_a_mask_is_a_piece_of_the_vocabulary_once_that_is_known():
    mask = {"corruption.share": 0.1, "corruption.kind": "mask", "corruption.mask_piece": 64}
    unknown = replace(Config(), mask)
    assert replace(unknown, {"model.vocab_size": 65}).corruption.mask_piece == 64
    refused(mask | {"model.vocab_size": 64}, "--corruption.mask-piece 64 is no id of a vocabulary of 64; lower it")


@pytest.mark.parametrize("start, stop, steps, window", [
    (0.0, 1.0, 7, (0, 7)), (0.1, 0.9, 100, (10, 90)), (0.25, 0.5, 10, (3, 5)), (0.07, 0.29, 100, (7, 29)),
])  # fmt: skip
def test_the_window_is_whole_steps(start, stop, steps, window):
    made = CorruptionConfig(share=0.1, start=start, stop=stop)
    assert made.window(steps) == window
    assert [bool(made.due(step, steps)) for step in range(steps)] == [window[0] <= s < window[1] for s in range(steps)]


def test_a_slope_is_needed_for_replacements_by_gradient_alone():
    assert CorruptionConfig(share=0.1, kind="gradient").slopes
    assert not CorruptionConfig(kind="gradient").slopes and not CorruptionConfig(share=0.1).slopes
