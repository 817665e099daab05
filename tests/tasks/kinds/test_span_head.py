"""The head of spans against two softmaxes over the candidates."""

import numpy as np
import pytest

from chinchilla_jax.tasks.kinds import spans
from tests.tasks.kinds.oracle import task_data
from tests.tasks.kinds.test_spans import QUESTIONS


def test_the_span_loss_is_two_softmaxes_over_the_candidates(tiny_store):
    data = task_data(tiny_store, "spans", QUESTIONS[:1] + QUESTIONS[2:], seq_len=160)
    from chinchilla_jax.tasks.pack import filled

    batch = filled([data.first], 160, False)
    draw = np.random.default_rng(0)
    hidden, table = draw.standard_normal((1, 160, 6)), draw.standard_normal((2, 7))
    loss, _ = spans.span_head(hidden, table, batch)
    expected = 0.0
    for segment in range(1, len(data.first) + 1):
        there = (batch.segments[0] == segment) & (batch.targets[0] & spans.CANDIDATE > 0)
        z = np.append(hidden[0], np.ones((160, 1)), 1)[there] @ table.T
        log_p = z - np.log(np.exp(z).sum(0))
        for column, bit in enumerate((spans.START, spans.END)):
            expected -= 0.5 * log_p[np.flatnonzero(batch.targets[0][there] & bit)[0], column]
    assert float(loss) == pytest.approx(expected, rel=1e-5) and batch.weights.sum() == len(data.first)
