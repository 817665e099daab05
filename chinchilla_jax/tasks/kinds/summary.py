"""Summaries: a text, of which the beginning is kept where it is too long, scored by ROUGE."""

from functools import partial

from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.chat import OF_ANY, Answers, wrong
from chinchilla_jax.tasks.kinds.kind import AUGMENTS, WRITES, Kind
from chinchilla_jax.tasks.metrics import similarity

MARKS = ("", *(f"_{language}_char" for language in similarity.TOKENIZERS))
FIGURES = OF_ANY | {f"{name}{mark}": True for mark in MARKS for name in similarity.ROUGE}
KIND = Kind(
    "summary", Encoder.dialogue, FIGURES, judge=partial(Answers, score=similarity.rouge), reads=("chat",),
    in_bytes=True, keeps_template=True, generates=True, columns=("stopped", "references"),
    fallback="lines", keeps_start=True,
    follows=("sampling", *AUGMENTS, *WRITES), wrong=wrong,
)  # fmt: skip
