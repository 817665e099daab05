"""Continuations scored in batches, against the twin one by one and against the validation's own likelihood."""

import numpy as np
import pytest

from chinchilla_jax.evaluation.likelihood import Likelihood
from chinchilla_jax.evaluation.scoring import Scorer
from chinchilla_jax.types import Batch


def test_pairs_of_any_length_in_any_order(loaded, log_p):
    """Contexts of 1 to 40 tokens, continuations of 1 to 24, in two lengths of rows; one is greedy."""
    draw, pairs = np.random.default_rng(0), []
    for context, more in [(1, 1), (40, 24), (3, 20), (12, 1), (30, 5), (1, 24), (33, 1), *[(5, 2)] * 60]:
        pairs.append((draw.integers(3, 300, context).tolist(), draw.integers(3, 300, more).tolist()))
    greedy = pairs[3][0], [int(log_p(pairs[3][0])[-1].argmax())]
    found = Scorer(loaded.program, loaded.params)([*pairs, greedy])
    for (context, continuation), (total, best) in zip([*pairs, greedy], found):
        rows = log_p([*context, *continuation][:-1])[len(context) - 1 :]
        each = rows[np.arange(len(continuation)), continuation]
        assert total == pytest.approx(float(each.sum()), abs=1e-4 + 1e-5 * len(continuation))
        assert best == bool((rows.argmax(-1) == continuation).all())
    assert found[-1][1], "the likeliest token"


def test_a_document_of_one_window_has_the_likelihood_of_the_validation(loaded):
    """Both sum the same losses: equal to the last digits of float32."""
    program = loaded.program
    length, rows = program.config.train.seq_len, program.microbatch
    draw = np.random.default_rng(1)
    ids = draw.integers(3, 300, (rows, length))
    begin = np.full((rows, 1), loaded.tokenizer.separator)
    tokens = np.hstack([begin, ids[:, :-1]]).astype(np.int32)
    ones, positions = np.ones((rows, length)), np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    batch = Batch(tokens, ids.astype(np.int32), np.float32(ones), np.int32(ones), positions)
    expected = Likelihood(program, None).sums(loaded.params, [batch]).loss
    found = Scorer(program, loaded.params)([(begin[0].tolist(), row.tolist()) for row in ids])
    assert -sum(total for total, _ in found) == pytest.approx(expected, rel=1e-6)


def test_lengths_are_few(loaded):
    scorer = Scorer(loaded.program, loaded.params)
    assert [scorer._length(([1], [2] * n)) for n in (1, 32, 33, 64, 65)] == [32, 32, 64, 64, 128]
    assert all(scorer._rows(length) % loaded.program.mesh.shape["data"] == 0 for length in (32, 4096))
