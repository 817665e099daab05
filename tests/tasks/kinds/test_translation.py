"""Scores of translations: of all references, with the signature that says how they were counted."""

from types import SimpleNamespace

import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.tasks.kinds import translation
from chinchilla_jax.tasks.records import Dialogue, Turn
from tests.tasks.made import HERE

pytest.importorskip("sacrebleu")


def judge(name: str, language: str, count: int = 12):
    """A judge of two pairs, of which the first has `count` references; and what it notes."""
    first = tuple(f"the old wind sings {n}" for n in range(count))
    pairs = [Dialogue(HERE, (Turn("user", "q"), Turn("assistant", texts[0])), references=texts[1:])
             for texts in (first, ("over a cold sea",))]  # fmt: skip
    data = SimpleNamespace(task=TaskConfig(language=language), notes=[])
    told = SimpleNamespace(data=data, records=pairs, most=2, writer=lambda: None, name=name)
    return translation.Translations(told), data.notes


@pytest.mark.parametrize("name, language, cut", [("valid", "auto", "13a"), ("test", "zh-CN", "zh")])
def test_what_is_judged_notes_how_it_is_counted(name, language, cut):
    """As it is scored: in the language that was asked for, by all references, of validation or of the test."""
    _, [note] = judge(name, language)
    assert note.startswith(f"BLEU and chrF2 on 2 pairs of {name}: `BLEU|nrefs:var") and f"tok:{cut}" in note


def test_the_scores_are_those_of_all_references():
    made, _ = judge("valid", "auto")
    figures = translation.score(["the old wind sings 11", "over a cold sea"], made.references, made.language)
    assert figures["bleu"] == pytest.approx(100) and figures["chrf2"] == pytest.approx(100)
