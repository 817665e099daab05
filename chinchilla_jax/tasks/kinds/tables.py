"""Tables of a report: what the sections of every kind are made of."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

PARTS = 4  # of a table by length


def section(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A heading and a table; nothing where there are no rows."""
    rows = list(rows)
    if not rows:
        return []
    lines = ["| " + " | ".join(map(shown, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    return [f"## {title}", "", *lines, ""]


def shown(value: Any) -> str:
    """A cell: figures to four places, and nothing that would end it."""
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


def by_label(names: Sequence[str], references: Sequence[Iterable], outputs: Sequence[Iterable]) -> list[str]:
    """Precision, recall and F1 of every label, from the labels of each record and those that were given to it."""
    sets = [({*one}, {*other}, {*one} & {*other}) for one, other in zip(references, outputs)]
    counts = [Counter(label for parts in sets for label in parts[i]) for i in range(3)]
    rows = []
    for name in names:
        there, said, right = (count[name] for count in counts)
        rows.append((name, there, said, right / max(said, 1), right / max(there, 1), 2 * right / max(said + there, 1)))
    return section("By label", ("label", "references", "outputs", "precision", "recall", "F1"), rows)


def by_length(
    rows: Sequence[dict[str, Any]],
    length: Callable[[dict[str, Any]], int],
    unit: str,
    figures: Mapping[str, Callable[[list[dict[str, Any]]], float]],
) -> list[str]:
    """Figures of the predictions in four parts of about equal size, by the length of the input."""
    if not rows:
        return []
    sizes = np.array([length(row) for row in rows])
    edges = np.unique(np.quantile(sizes, np.arange(1, PARTS) / PARTS, method="inverted_cdf"))
    place, lines = np.searchsorted(edges, sizes), []
    for part in np.unique(place):
        chosen = place == part
        held = [row for row, one in zip(rows, chosen) if one]
        span = f"{sizes[chosen].min()} to {sizes[chosen].max()}"
        lines.append((span, len(held), *(float(figure(held)) for figure in figures.values())))
    return section(f"By length of the input, in {unit}", (unit, "records", *figures), lines)
