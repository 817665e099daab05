"""What packing must not change: a row's loss is the sum of its documents', and nothing leaks between them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import Config, ObjectiveConfig, TaskConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.objective import WHOLE
from chinchilla_jax.tasks.encode import Example, Item, example
from chinchilla_jax.tasks.kinds.heads import head_rows, labels
from chinchilla_jax.tasks.pack import Packed, filled
from chinchilla_jax.tasks.records import Where
from tests import tiny

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


def test_a_label_head_is_a_linear_classifier_of_one_token():
    config = Config(model=CFG, task=TaskConfig(kind="labels", labels=("a", "b", "c")))
    [(name, shape)] = head_rows(config).items()
    assert name == "labels/kernel" and shape == (3, CFG.d_model)
    head = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    params = tiny.spiced(CFG) | {"heads": {"labels": {"kernel": head}}}
    sizes = [4, 9, 6]
    parts = []
    for number, n in enumerate(sizes):
        tokens, targets, weights = np.arange(4, 4 + n, dtype=np.int32), np.zeros(n, np.int32), np.zeros(n, np.float32)
        targets[-1], weights[-1] = number, 1
        parts.append(Item(Where("f", 1, 1), number, (Example(tokens, targets, weights),)))
    batch = filled([parts], L, False)
    objective = labels(config, WHOLE)
    grads, sums, _ = tiny.jit(lambda p: objective.gradients(p, batch, None, 0, ()))(params)
    hidden = np.asarray(tiny.jit(partial(transformer.apply, cfg=CFG))(params, batch))[0][np.cumsum(sizes) - 1]
    logits = hidden @ head.T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert float(sums.loss) == pytest.approx(-np.log(np.diag(p)).sum(), rel=1e-5) and float(sums.weight) == 3
    np.testing.assert_allclose(grads["heads"]["labels"]["kernel"], (p - np.eye(3)).T @ hidden, rtol=1e-4, atol=1e-5)
    assert objective.weighs == "records" and np.abs(np.asarray(grads["embed"]["table"])).max() > 0
