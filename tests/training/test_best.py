"""The best step of a run: which one, how long ago, and a file that is half there."""

import math

import pytest

from chinchilla_jax.training import best

NAN = math.nan


@pytest.mark.parametrize("new, old, lower, beats", [
    (1.0, 2.0, True, True), (2.0, 1.0, True, False), (2.0, 1.0, False, True), (1.0, 1.0, True, False),
    (1.0, 1.0, False, False), (1.0, NAN, True, True), (NAN, 1.0, True, False), (NAN, NAN, True, False),
    (-math.inf, 1.0, True, False), (math.inf, 1.0, False, False), (5.0, math.inf, False, True),
])  # fmt: skip
def test_a_figure_beats_a_worse_one_or_none(new, old, lower, beats):
    assert best.better(new, old, lower) == beats


@pytest.mark.parametrize("values, lower, expected", [
    ([3.0, 1.0, 2.0], True, (20, 1.0, 1)),
    ([3.0, 1.0, 2.0], False, (10, 3.0, 2)),
    ([2.0, 2.0, 2.0], True, (10, 2.0, 2)),  # of equals the first
    ([None, 2.0, None, 3.0], True, (20, 2.0, 2)),  # null stands for what was not finite
    ([None, None], False, None),
    ([], True, None),
])  # fmt: skip
def test_the_first_best_and_the_validations_since(values, lower, expected):
    """Rows of training and of other hooks stand between them and do not count."""
    rows = []
    for number, value in enumerate(values, 1):
        rows += [{"step": 10 * number, "loss": 0.0}, {"step": 10 * number, "valid_loss": value}]
        rows += [{"step": 10 * number, "sample": "words"}]
    found = best.choose(rows, "valid_loss", lower)
    keys = ("step", "value", "since")
    assert found == ({} if expected is None else dict(zip(keys, expected)) | {"metric": "valid_loss"})


def test_what_is_written_is_read_and_half_a_file_is_none(tmp_path):
    best.write(tmp_path, {})
    assert best.read(tmp_path) == {} and not list(tmp_path.iterdir())
    best.write(tmp_path, {"step": 7, "metric": "valid_loss", "value": 1.5, "since": 0})
    assert best.read(tmp_path)["step"] == 7
    for content in ('{"step": 7', "[7]", '{"step": "7"}', "{}"):
        (tmp_path / best.FILE).write_text(content)
        assert best.read(tmp_path) == {}


def test_best_is_never_a_number_that_is_none():
    rows = [{"step": s, "valid_loss": v} for s, v in ((1, None), (2, 3.0), (3, math.nan), (4, 2.0), (5, 2.0))]
    assert best.choose(rows, "valid_loss", True) == {"step": 4, "metric": "valid_loss", "value": 2.0, "since": 1}
    assert best.choose(rows, "valid_loss", False)["step"] == 2 and best.choose(rows[:1], "valid_loss", True) == {}
