"""A text with one label: its target, and the head against a linear classifier."""

from functools import partial

import numpy as np
import pytest

from chinchilla_jax.config import Config, TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.objective import WHOLE
from chinchilla_jax.tasks.encode import Example, Item
from chinchilla_jax.tasks.kinds.heads import head_rows, labels
from chinchilla_jax.tasks.pack import filled
from chinchilla_jax.tasks.records import Labelled, Where
from chinchilla_jax.tasks.render import Renderer
from chinchilla_jax.tasks.template import PLAIN
from tests import tiny
from tests.tasks.made import HERE, encoder, examples

CFG = tiny.MODERN


L = 64


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


def test_a_label_is_the_target_of_the_last_token(tokenizer):
    made = encoder(Renderer(PLAIN, tokenizer), 12, labels=("a", "b"), kind="labels")
    [part] = examples(made, Labelled(HERE, ("wind", "the sea"), ("b",)))
    assert part.tokens.tolist() == [tokenizer.separator, *tokenizer.encode("wind\nthe sea")]
    assert part.weights.sum() == part.weights[-1] == 1 and part.targets[-1] == 1
    [long] = examples(made, Labelled(HERE, ("the sea " * 30,), ("a", "b")))
    assert len(long) == 12 and long.targets[-1] == 0 and len(made.tally.counts) == 2
    with pytest.raises(UserError, match=r"here:1 .*label 'c' is none of"):
        made.items(Labelled(HERE, ("wind",), ("c",)), 0)
