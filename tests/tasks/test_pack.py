"""What packing must not change: a row's loss is the sum of its documents', and nothing leaks between them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import ObjectiveConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.tasks.encode import Item, example
from chinchilla_jax.tasks.pack import Packed, filled, in_order, layout
from chinchilla_jax.tasks.records import Where
from tests import tiny
from tests.tasks.made import dialogue, encoder

CFG = tiny.MODERN
L = 64


def documents(count: int, seed: int = 0) -> list[Item]:
    draw, items = np.random.default_rng(seed), []
    for number in range(count):
        n = int(draw.integers(3, 20))
        ids, cut = draw.integers(4, CFG.vocab_size, n).tolist(), int(draw.integers(1, n))
        part = example(ids, [i >= cut for i in range(n)], 2, True, number % 2 == 1)
        items.append(Item(Where("f", number, number), number, (part,)))
    return items


@pytest.fixture(scope="module")
def losses():
    """losses(rows of items): the loss of every token, (B, L)."""
    params = tiny.spiced(CFG)
    objective = dense(CFG, ObjectiveConfig())

    @tiny.jit
    def run(batch):
        def total(weights):
            return objective.loss(params, dataclasses.replace(batch, weights=weights), None)[0]

        return jax.grad(total)(batch.weights) * batch.weights

    return lambda rows: np.asarray(run(filled(rows, L, True)))


def test_a_packed_loss_is_the_sum_of_64_single_ones(losses):
    items = documents(64)
    rows = Packed(lambda epoch: items, L, 0).epoch(0)[1]
    packed = losses([[items[i] for i in row] for row in rows]).sum()
    single = losses([[item] for item in items]).sum()
    assert packed == pytest.approx(single, rel=1e-5)


def test_neighbours_and_order_change_nothing(losses):
    one, *others = documents(5)
    n = len(one)
    alone = losses([[one]])[0, :n]
    for row in ([one, others[0]], [others[1], one], [others[2], others[3], one]):
        start = sum(map(len, row[: row.index(one)]))
        np.testing.assert_allclose(losses([row])[0, start : start + n], alone, rtol=2e-5, atol=1e-6)


def test_no_gradient_between_documents():
    """Exactly 0 by another's embeddings, also with prompts read in both directions."""
    params, (first, second) = tiny.spiced(CFG), documents(2, seed=3)
    batch = filled([[first, second]], L, True)
    n, objective = len(first), dense(CFG, ObjectiveConfig())

    def loss(delta_BLD, weights):
        return objective.loss(params, dataclasses.replace(batch, weights=weights), None, delta_BLD)[0]

    zeros = jnp.zeros((1, L, CFG.d_model))
    grad = tiny.jit(jax.grad(loss))
    mine = np.asarray(grad(zeros, batch.weights * (np.arange(L) < n)))[0]
    assert np.abs(mine[:n]).max() > 0 and not mine[n:].any()
    other = np.asarray(grad(zeros, batch.weights * (np.arange(L) >= n)))[0]
    assert np.abs(other[n:]).max() > 0 and not other[:n].any()


def test_later_targets_have_no_gradient_in_both_directions():
    """A target sees its prompt, all of it, and no later target."""
    params = tiny.spiced(CFG)
    part = example(list(range(4, 16)), [False] * 5 + [True] * 7, 2, True, True)
    batch = filled([[Item(Where("f", 1, 1), 0, (part,))]], L, True)

    def loss(delta_BLD, at):
        hidden = transformer.apply(params, batch, CFG, delta_BLD=delta_BLD)
        return jnp.sum(hidden[0, at] ** 3)

    grad = tiny.jit(jax.grad(loss))
    zeros = jnp.zeros((1, L, CFG.d_model))
    seen = np.array([np.abs(np.asarray(grad(zeros, at))[0]).max(-1) > 0 for at in (1, 6, 9)])
    columns = np.arange(L)
    np.testing.assert_array_equal(seen, [columns < 5, columns < 7, columns < 10])


def test_layout_wastes_little_and_loses_nothing():
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 60, 500).tolist()
    rows = layout(sizes, draw.permutation(500).tolist(), 64)
    assert sorted(i for row in rows for i in row) == list(range(500))
    assert all(sum(sizes[i] for i in row) <= 64 for row in rows) and sum(sizes) / (64 * len(rows)) > 0.9


@pytest.fixture(scope="module")
def items(chat):
    made = encoder(chat, 64)
    return [item for seed in range(20) for item in made.items(dialogue(1 + seed % 3, seed), seed)]


def test_a_row_is_a_function_of_seed_and_number(items):
    def fresh(seed=3):
        return Packed(lambda epoch: items, 64, seed)

    straight, later = fresh(), fresh()
    all_rows = straight.rows_of(3)
    batch = straight.rows(np.arange(all_rows))
    again = later.rows(np.arange(all_rows - 2, all_rows))
    for name in ("tokens", "targets", "weights", "segments", "positions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(batch, name)[-2:])
    assert (batch.weights.sum(1) > 0).all(), "no row without a loss"
    assert not np.array_equal(fresh(4).rows(np.arange(2)).tokens, batch.tokens[:2])
    total = sum(float(part.weights.sum()) for item in items for part in item.parts)
    assert batch.weights.sum() == 3 * total and batch.blocks is None
    first = straight.rows(np.arange(straight.rows_of(1)))
    assert first.weights.sum() == total


def test_documents_are_segments_with_positions_of_their_own(items):
    row = items[:2]
    batch = filled([row, []], 256, False)
    sizes = [len(part) for item in row for part in item.parts]
    expected = np.repeat([*range(1, len(sizes) + 1), 0], [*sizes, 256 - sum(sizes)])
    np.testing.assert_array_equal(batch.segments[0], expected)
    starts = np.concatenate([np.arange(size) for size in sizes])
    np.testing.assert_array_equal(batch.positions[0, : sum(sizes)], starts)
    assert not batch.segments[1].any() and not batch.weights[1].any()
    held = [item for rows, _ in in_order(items, 64, 4, False) for row in rows for item in row]
    assert sorted(id(item) for item in held) == sorted(map(id, items))
