"""Heads in the place of the vocabulary against closed forms in numpy, alone and under attack."""

from functools import partial

import jax
import numpy as np
import pytest

from chinchilla_jax.config import AdversarialConfig, Config, OptimizerConfig, TaskConfig, TrainConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.objectives.objective import WHOLE
from chinchilla_jax.tasks.kinds import heads, multilabel
from chinchilla_jax.types import Batch
from tests import tiny

CFG = tiny.MODERN
NAMES = tuple(map(str, range(40)))  # more than the target of one token holds
SIZES = [5, 9, 7]


def config(**adversarial) -> Config:
    return Config(
        model=CFG, task=TaskConfig(kind="multilabel", labels=NAMES), optimizer=OptimizerConfig(warmup_steps=0),
        train=TrainConfig(steps=10, seq_len=24, batch_size=1), adversarial=AdversarialConfig(**adversarial),
    )  # fmt: skip


@pytest.fixture(scope="module")
def made():
    """A batch of three records with sets of labels, which labels, and parameters with both kinds of head."""
    draw = np.random.default_rng(0)
    batch = tiny.packed([SIZES], 24, CFG.vocab_size)
    there = draw.random((3, 40)) < 0.2
    batch.targets[:], batch.weights[:] = 0, 0
    for record, end in enumerate(np.cumsum(SIZES) - 1):
        batch.weights[0, end] = 1
        for label in np.flatnonzero(there[record]):
            batch.targets[0, end - label // multilabel.BITS] |= 1 << (label % multilabel.BITS)
    kernel, bias = draw.standard_normal((40, CFG.d_model)).astype(np.float32), draw.standard_normal(40)
    own = {"labels": {"kernel": kernel}, "tags": {"kernel": kernel, "bias": bias.astype(np.float32)}}
    params = tiny.spiced(CFG) | {"heads": own}
    hidden = np.asarray(tiny.jit(partial(transformer.apply, cfg=CFG))(params, batch))[0]
    return batch, there, params, hidden


def test_sets_of_labels_are_decided_one_by_one(made):
    batch, there, params, hidden = made
    sets = np.asarray(multilabel.sets(batch.targets, 40))[0]
    assert (sets[np.cumsum(SIZES) - 1] == there).all()
    objective = multilabel.KIND.objective(config(), WHOLE)
    sums = tiny.jit(objective.evaluate)(params, batch)
    z = hidden[np.cumsum(SIZES) - 1] @ params["heads"]["labels"]["kernel"].T
    expected = np.where(there, np.log1p(np.exp(-z)), np.log1p(np.exp(z))).sum()
    assert float(sums.loss) == pytest.approx(expected, rel=1e-5) and float(sums.weight) == 3
    assert objective.weighs == "records"


def test_tags_have_biases(made):
    batch, _, params, hidden = made
    targets = np.random.default_rng(1).integers(0, 40, batch.targets.shape).astype(np.int32)
    tagged = Batch(batch.tokens, targets, (batch.segments > 0).astype(np.float32), batch.segments, batch.positions)
    objective = heads.tags(config(), WHOLE)
    grads, sums, _ = tiny.jit(lambda p: objective.gradients(p, tagged, None, 0, ()))(params)
    z = hidden @ params["heads"]["tags"]["kernel"].T + params["heads"]["tags"]["bias"]
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    n = sum(SIZES)
    assert float(sums.loss) == pytest.approx(-log_p[np.arange(n), targets[0, :n]].sum(), rel=1e-5)
    each = np.exp(log_p[:n]) - np.eye(40)[targets[0, :n]]
    np.testing.assert_allclose(grads["heads"]["tags"]["bias"], each.sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grads["heads"]["tags"]["kernel"], each.T @ hidden[:n], rtol=1e-4, atol=1e-4)


def test_a_head_that_is_no_softmax_is_attacked_by_its_loss_alone(made):
    batch, _, params, _ = made
    attacked = objectives.build(
        config(method="freelb", radius=0.3, steps=2, fraction=1.0), WHOLE, multilabel.KIND.objective
    )
    _, sums, _ = tiny.jit(lambda p: attacked.gradients(p, batch, jax.random.key(0), 3, ()))(params)
    clean = tiny.jit(attacked.evaluate)(params, batch)
    found = {name: float(each.loss / each.weight) for name, each in sums.others.items()}
    assert found["loss_attacked"] > float(clean.loss / clean.weight)
    for method in ("r3f", "softmax_margin"):
        with pytest.raises(UserError, match="compares predictions"):
            objectives.build(config(method=method, radius=0.1), WHOLE, multilabel.KIND.objective)
