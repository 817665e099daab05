"""A batch is a pure function of (seed, step)."""

import math

import chex
import jax
import numpy as np
import pytest

from chinchilla_jax.config import TrainConfig
from chinchilla_jax.data.batches import Batches, TrainWindows, gather, valid_batch, valid_count
from chinchilla_jax.data.mixture import permute
from chinchilla_jax.data.split import Split
from chinchilla_jax.errors import UserError

SEPARATOR = 2


def stream(lengths: list[int], seed: int = 0) -> Split:
    """Documents of these lengths (separator included) and the last separator. A token may equal the separator."""
    draw = np.random.default_rng(seed)
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.uint64)
    tokens = draw.integers(0, 50, sum(lengths) + 1).astype(np.uint16)
    tokens[starts.astype(int)] = tokens[-1] = SEPARATOR
    return Split(tokens, starts, 1000)


@pytest.fixture
def split():
    return stream(np.random.default_rng(1).integers(1, 30, 60).tolist())


def naive(split: Split, start: int, length: int) -> dict[str, list]:
    """A row by the definition, token for token."""
    row = {name: [] for name in ("tokens", "targets", "weights", "segments", "positions")}
    segment = position = 0
    for column in range(length):
        at = start + column
        if at >= len(split.tokens) - 1:
            values = (0, 0, 0.0, 0, 0)
        else:
            new = column == 0 or at in split.starts.tolist()
            segment, position = (segment + 1, 0) if new else (segment, position + 1)
            values = (split.tokens[at], split.tokens[at + 1], 1.0, segment, position)
        for name, value in zip(row, values):
            row[name].append(value)
    return row


@pytest.mark.parametrize("length", [1, 2, 7, 16, 64])
def test_rows_are_those_of_the_naive_loop(split, length):
    starts = np.arange(0, len(split.tokens) + 3 * length, 3)
    batch = gather(split, starts, length)
    for number, start in enumerate(starts.tolist()):
        for name, values in naive(split, start, length).items():
            assert getattr(batch, name)[number].tolist() == values, (start, name)


def test_types(split):
    batch = TrainWindows(split, 8, 0).rows(np.arange(3))
    kinds = {name: value.dtype for name, value in vars(batch).items()}
    assert kinds == {"weights": np.float32, **dict.fromkeys(("tokens", "targets", "segments", "positions"), np.int32)}
    assert all(getattr(batch, name).shape == (3, 8) for name in kinds)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097])
def test_permute_is_a_bijection(size):
    for key in (0, 1, 2**63):
        assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_permute_of_one_index_does_not_depend_on_the_others():
    together = permute(np.arange(1000), 1000, 7)
    assert [int(permute(np.array([i]), 1000, 7)[0]) for i in range(0, 1000, 37)] == together[::37].tolist()


def test_permute_reaches_far():
    large = permute(np.array([0, 2**39]), 2**40 + 1, 3)
    assert large.min() >= 0 and large.max() <= 2**40 and len(set(large.tolist())) == 2


def test_permute_looks_random():
    """Neighbours land anywhere: the mean distance of a random pair in [0, n) is n/3, its deviation known."""
    size = 20_000
    for key in range(5):
        places = permute(np.arange(size), size, key)
        distances = np.abs(np.diff(places))
        assert abs(distances.mean() - size / 3) < 5 * (size / np.sqrt(18)) / np.sqrt(size)
        assert (places == np.arange(size)).sum() < 10
        counts = np.bincount(places[: size // 2] * 10 // size, minlength=10)
        assert ((counts - size / 20) ** 2 / (size / 20)).sum() < 40


def test_every_window_once_an_epoch_in_a_new_order(split):
    windows, count = TrainWindows(split, 8, 0), (len(split.tokens) - 1) // 8
    epochs = windows.starts(np.arange(3 * count)).reshape(3, -1)
    assert all(sorted(epoch) == list(range(0, 8 * count, 8)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    assert TrainWindows(split, 8, 1).starts(np.arange(count)).tolist() != epochs[0].tolist()


def test_windows_that_shift_have_no_padding_and_the_next_token_for_a_target(split):
    windows, count = TrainWindows(split, 8, 0, shifts=True), (len(split.tokens) - 1) // 8
    rows = np.arange(5 * count)
    batch, starts = windows.rows(rows), windows.starts(rows)
    assert (batch.weights == 1).all() and (starts[count:] % 8).any()
    tokens = np.asarray(split.tokens)
    np.testing.assert_array_equal(batch.tokens, tokens[starts[:, None] + np.arange(8)])
    np.testing.assert_array_equal(batch.targets, tokens[starts[:, None] + np.arange(1, 9)])


@pytest.mark.parametrize("seed", [-1, 0, 2**62])
def test_any_seed_will_do(split, seed):
    assert TrainWindows(split, 8, seed).rows(np.arange(4)).tokens.shape == (4, 8)


def test_a_stream_shorter_than_a_window_is_an_error():
    with pytest.raises(UserError, match=r"--train\.seq-len 64"):
        TrainWindows(stream([10, 20]), 64, 0)
    assert TrainWindows(stream([64]), 64, 0).starts(np.arange(2)).tolist() == [0, 0]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_together_read_the_global_batch(split, hosts):
    train = TrainConfig(batch_size=8, seq_len=8, batch_ramp=((3, 16),))
    batches = Batches(TrainWindows(split, 8, 5), train)
    for step in (0, 2, 3, 9):
        whole, share = batches.at(step), batches.batch_rows(step) // hosts
        parts = [batches.at(step, slice(h * share, (h + 1) * share)) for h in range(hosts)]
        chex.assert_trees_all_equal(jax.tree.map(lambda *shares: np.concatenate(shares), *parts), whole)


def test_steps_use_up_rows_one_after_the_other(split):
    train = TrainConfig(batch_size=4, seq_len=8, batch_ramp=((3, 8), (7, 12)))
    batches = Batches(TrainWindows(split, 8, 5), train)
    used = 0
    for step in range(12):
        size = 4 if step < 3 else 8 if step < 7 else 12
        assert batches.batch_rows(step) == size
        assert np.array_equal(batches.at(step).tokens, batches.windows.rows(used + np.arange(size)).tokens)
        used += size


@pytest.mark.parametrize(("length", "rows"), [(1, 1), (7, 4), (16, 3), (5000, 2)])
def test_validation_reads_every_token_once(split, length, rows):
    batches = [valid_batch(split, length, rows, number) for number in range(valid_count(split, length, rows))]
    for batch in batches:
        chex.assert_shape(jax.tree.leaves(batch), (rows, length))
    targets = np.concatenate([b.targets[b.weights > 0] for b in batches])
    assert targets.tolist() == split.tokens[1:].tolist()
    assert all((b.segments[b.weights == 0] == 0).all() and (b.segments[b.weights > 0] > 0).all() for b in batches)


def test_validation_can_be_limited(split):
    assert valid_count(split, 4, 2, limit=3) == 3
    assert valid_count(split, 4, 2, limit=10**6) == math.ceil(math.ceil((len(split.tokens) - 1) / 4) / 2)
