"""A soft prompt in the rows of a batch."""

import numpy as np

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.finetuning.prompts import prefixed
from tests import tiny


def test_a_soft_prompt_stands_before_every_document():
    rows = tiny.packed([[3, 4], [9]], 12, 61)
    found = prefixed(rows, (61, 62))
    t = np.asarray(rows.tokens)
    assert found.tokens[0].tolist() == [61, 62, *t[0, :3], 61, 62, *t[0, 3:7], 0]
    assert found.segments[0].tolist() == [1] * 5 + [2] * 6 + [0]
    assert found.positions[0].tolist() == [*range(5), *range(6), 0]
    assert found.weights[0].tolist() == [0, 0, *rows.weights[0, :3], 0, 0, *rows.weights[0, 3:7], 0]
    assert found.targets[1].tolist() == [0, 0, *rows.targets[1, :9], 0]
    full = prefixed(tiny.packed([[12]], 12, 61), (61, 62))
    assert full.tokens.shape == (1, 12) and full.segments.min() == 1, "what runs over is cut off"
    made = recipe(tiny.LLAMA, TuneConfig(method="prompt", prompt=2))
    assert made.fed(rows).tokens[0, :2].tolist() == [256, 257]
    assert recipe(tiny.LLAMA, TuneConfig(method="lora")).fed(rows) is rows
