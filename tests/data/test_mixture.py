"""The order of training windows."""

import numpy as np
import pytest

from chinchilla_jax.data.mixture import Mixture, Sequence
from chinchilla_jax.data.split import Part
from chinchilla_jax.errors import UserError

PARTS = (Part("a", 0, 7000, 1), Part("b", 7000, 9000, 1), Part("c", 9000, 9800, 1))


@pytest.mark.parametrize("windows, lanes", [(1, 1), (100, 1), (100, 8), (103, 8), (5, 8)])
def test_every_epoch_has_every_window_once(windows, lanes):
    sequence = Sequence(7 * windows + 6, 7, lanes, 3)
    rows = np.arange(windows * 24)
    found, rest = np.divmod(sequence.starts(rows % lanes, rows // lanes), 7)
    assert not rest.any()
    counts = np.bincount(found, minlength=windows)
    assert len(counts) == windows and counts.max() - counts.min() <= (
        0 if windows % lanes == 0 or lanes > windows else 6
    )
    first = found[: windows // lanes * lanes] if windows >= lanes else found[:windows]
    assert len(set(first.tolist())) == len(first)
    assert windows < 50 or (found[:50] != np.sort(found[:50])).any()


def test_one_lane_is_the_order_of_old():
    from chinchilla_jax.data.hashing import seeded
    from chinchilla_jax.data.mixture import permute

    rows = np.arange(500)
    expected = permute(rows % 77, 77, seeded(rows // 77, 5))
    assert (Sequence(77, 1, 1, 5).starts(rows * 0, rows) == expected).all()


@pytest.mark.parametrize("lanes", [1, 4])
def test_windows_that_shift_are_those_of_old_at_first_and_then_cut_elsewhere(lanes):
    """No token is read twice in an epoch, but for the last window; all offsets come up alike; lanes shift together."""
    tokens, length, epochs = 64 * 24 + 5, 64, 40
    rows = np.arange(24 * epochs)
    still, moving = (
        Sequence(tokens, length, lanes, 3, shifts).starts(rows % lanes, rows // lanes).reshape(epochs, -1)
        for shifts in (False, True)
    )
    np.testing.assert_array_equal(moving[0], still[0])
    shift = (moving - still).max(1)
    np.testing.assert_array_equal(moving, np.minimum(still + shift[:, None], tokens - length))
    assert shift.min() >= 0 and shift.max() < length
    assert np.diff(np.sort(shift)).max() <= 4  # 40 of 64 offsets, spread evenly


def source_of(starts):
    """The source that each start lies in."""
    return np.searchsorted([7000, 9000], starts, side="right")


@pytest.mark.parametrize("lanes", [1, 4, 32])
@pytest.mark.parametrize("weights", [(0.7, 0.3, 0.0), (0.2, 0.5, 0.3), (0, 0, 1), (3, 1, 1)])
def test_shares_are_kept_in_every_stretch(weights, lanes):
    mixture = Mixture(PARTS, weights, 10, lanes, 0)
    sources = source_of(mixture.starts(np.arange(64_000)))
    for at in range(0, 64_000, 8000):
        shares = np.bincount(sources[at : at + 8000], minlength=3) / 8000
        assert np.abs(shares - np.array(weights) / sum(weights)).max() <= 0.01


@pytest.mark.parametrize("lanes", [1, 4])
def test_no_window_comes_twice_before_its_source_ends(lanes):
    mixture = Mixture(PARTS, (0.5, 0.3, 0.2), 10, lanes, 0)
    starts = mixture.starts(np.arange(3000))
    for source, windows in enumerate((700, 200, 80)):
        mine = starts[source_of(starts) == source]
        first = mine[: windows - 2 * lanes]
        assert len(set(first.tolist())) == len(first)
        assert len(set(mine[: windows + 2 * lanes].tolist())) > windows - 2 * lanes
    assert mixture.epochs(3000) == pytest.approx({"a": 1500 / 700, "b": 4.5, "c": 7.5})


def test_rows_do_not_depend_on_what_is_asked_with_them():
    mixture = Mixture(PARTS, (0.5, 0.3, 0.2), 10, 4, 0)
    whole = mixture.starts(np.arange(1000))
    assert (mixture.starts(np.arange(300, 310)) == whole[300:310]).all()
    assert (whole != Mixture(PARTS, (0.5, 0.3, 0.2), 10, 4, 1).starts(np.arange(1000))).any()


def test_a_source_without_a_window_is_named():
    with pytest.raises(UserError, match=r"c has 800 tokens.*weight 0 or"):
        Mixture(PARTS, (0.5, 0.3, 0.2), 900, 1, 0)
    Mixture(PARTS, (0.5, 0.5, 0), 900, 1, 0)
