"""Translation: source and target, decoded greedily or by beam, scored by sacrebleu's corpus BLEU and chrF2."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.chat import OF_ANY, Answers
from chinchilla_jax.tasks.kinds.kind import Figures, Kind, Rows
from chinchilla_jax.tasks.metrics import similarity


def score(outputs: Sequence[str], given: Sequence[Sequence[str]], language: str) -> Figures:
    """BLEU and chrF2 of all of them together."""
    return similarity.translation(outputs, given, language)[0]


def signature(found: dict[str, Any], rows: Rows) -> list[str]:
    """How the scores were counted, for the report."""
    if not rows:
        return []
    given = [row.get("references", [row["reference"]]) for row in rows]
    language = similarity.language_of([text for texts in given for text in texts])
    scores, how = similarity.translation([row["output"].strip() for row in rows], given, language)
    lines = [f"{name} {value:.2f} on {len(rows)} validation pairs" for name, value in scores.items()]
    return ["## Scores", "", *(f"- {line}" for line in (*lines, f"`{how}`")), ""]


KIND = Kind(
    "translation", Encoder.dialogue, OF_ANY | {"bleu": True, "chrf2": True}, judge=partial(Answers, score=score),
    reads=("chat",), in_bytes=True, keeps_template=True, generates=True,
    columns=("stopped", "references"), fallback="lines", sections=signature,
)  # fmt: skip
