"""The table by label of a report, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from chinchilla_jax.tasks.kinds import labels, multilabel

NAMES = ["a", "b", "c|d", "never"]


def lines_of(sections: list[str]) -> list[list[str]]:
    """The cells of the table by label."""
    start = sections.index("## By label") + 4
    return [line.replace("\\|", "/").strip("| ").split(" | ") for line in sections[start : start + len(NAMES)]]


def expected(there_NC, said_NC) -> list[list[str]]:
    p, r, f, _ = sk.precision_recall_fscore_support(there_NC, said_NC, average=None, zero_division=0)
    counts = zip(there_NC.sum(0), said_NC.sum(0))
    return [
        [name.replace("|", "/"), str(there), str(said), *(f"{x:.4f}" for x in figures)]
        for name, (there, said), *figures in zip(NAMES, counts, p, r, f)
    ]


@pytest.mark.parametrize("kind", [labels, multilabel])
def test_every_label_has_scikit_learns_figures(kind):
    draw, held = np.random.default_rng(3), []
    for _ in range(2):
        chance = draw.random((60, 4)) * [1, 1, 1, 0]
        held.append(chance > 0.6 if kind is multilabel else chance == chance.max(1, keepdims=True))
    there_NC, said_NC = (part.astype(int) for part in held)
    rows = []
    for there, said in zip(there_NC, said_NC):
        row = [[name for name, one in zip(NAMES, part) if one] for part in (there, said)]
        row = row if kind is multilabel else [names[0] for names in row]
        rows.append({"input": "x" * draw.integers(9), "reference": row[0], "output": row[1], "probability": 0.5})
    assert lines_of(kind.sections({"labels": NAMES}, rows)) == expected(there_NC, said_NC)


def test_no_rows_make_a_table_of_zeros():
    assert [line[1:3] for line in lines_of(labels.sections({"labels": NAMES}, []))] == [["0", "0"]] * 4
