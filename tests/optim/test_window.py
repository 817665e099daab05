"""The part of a run in which zeros are made, in updates."""

import pytest

from chinchilla_jax.config import SparsityConfig
from chinchilla_jax.optim.window import Window, cosine, cubic, window


@pytest.mark.parametrize("start, stop, steps, expected", [
    (0.25, 0.75, 100, (25, 75)), (0.0, 1.0, 10, (0, 9)), (0.5, 0.5, 3, (2, 2)), (0.0, 0.0, 1, (0, 0)),
])  # fmt: skip
def test_the_window(start, stop, steps, expected):
    when = window(SparsityConfig(start=start, stop=stop), steps)
    assert (when.first, when.last) == expected
    assert float(when.share(when.last)) == 1 and bool(when.due(when.last))
    assert bool(when.open(when.last)) and not bool(when.open(when.last + 1))


@pytest.mark.parametrize("steps, expected", [(2442, 100), (120, 6), (8, 1), (1, 1)])
def test_short_runs_change_their_masks_often_enough(steps, expected):
    assert window(SparsityConfig(), steps).every == expected
    assert window(SparsityConfig(every=7), steps).every == 7


def test_masks_change_at_every_so_many_updates_and_at_the_last():
    when = Window(first=3, last=11, every=4)
    assert [count for count in range(20) if when.due(count)] == [3, 7, 11]
    assert [count for count in range(20) if Window(3, 12, 4).due(count)] == [3, 7, 11, 12]
    shares = [float(when.share(count)) for count in (0, 3, 5, 11, 19)]
    assert shares == [0, 0, 0.25, 1, 1]
    assert [float(Window(5, 5, 1).share(count)) for count in (4, 5)] == [0, 1]


def test_curves_of_the_papers_at_a_quarter():
    """Zhu & Gupta 2017: 1 - 0.75^3; Evci et al. 2020: (1 + cos 45 degrees) / 2."""
    assert cubic(0.25) == pytest.approx(37 / 64) and (cubic(0), cubic(1)) == (0, 1)
    assert float(cosine(0.25)) == pytest.approx(0.5 + 2**0.5 / 4) and float(cosine(1)) == pytest.approx(0, abs=1e-7)
