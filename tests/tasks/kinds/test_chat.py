"""Answers: what is asked of a dialogue, what counts as right, and that varied replies are told apart."""

from types import SimpleNamespace

import pytest

from chinchilla_jax.tasks.kinds import chat
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tasks.records import Dialogue, Document, Turn
from tests.tasks.made import HERE


def talk(*turns: str, references: tuple[str, ...] = ()) -> Dialogue:
    """Turns of user and assistant in turn."""
    roles = ("user", "assistant")
    return Dialogue(HERE, tuple(Turn(roles[n % 2], text) for n, text in enumerate(turns)), references=references)


def test_every_answer_or_the_last_and_all_that_it_may_be():
    record = talk("q", "a", "r", "b", "s", references=("c", "d"))
    first, last = chat.asked(record, "all")
    assert first.texts == ("q", "a") and chat.references(first) == ("a",)
    assert last.texts == ("q", "a", "r", "b") and chat.references(last) == ("b", "c", "d")
    assert chat.asked(record, "last") == [last]
    made = chat.pair(record, "source", ["x", "y"])
    assert [turn.content for turn in made.turns] == ["source", "x"] and made.references == ("y",)


def answers(outputs: list[tuple[str, bool]], records, most: int = 9, turns="all", **how) -> chat.Answers:
    """Of a model that says these things, whatever it is asked."""
    asked = []

    def writer(params, prompts, blocks, new, poll):
        asked.extend(prompts)
        return [SimpleNamespace(ids=text, stopped=stopped) for text, stopped in outputs[: len(prompts)]]

    task = SimpleNamespace(language="auto", max_new_tokens=5, turns=turns)
    data = SimpleNamespace(
        task=task, blocks=False, tokenizer=SimpleNamespace(decode=lambda ids: ids),
        encoder=SimpleNamespace(prompt=lambda turns: (" / ".join(turn.content for turn in turns), [])),
    )  # fmt: skip
    examination = SimpleNamespace(data=data, records=records, most=most, writer=lambda: writer)
    made = chat.Answers(examination, lambda outputs, given, language: {"count": len(outputs)}, **how)
    made.prompts = asked
    return made


def test_what_is_asked_goes_up_to_an_answer_and_any_reference_is_right():
    records = [talk("q", "a", "r", "b"), talk("s", "x", references=("y", " z ")), talk("t", "u")]
    made = answers([(" b\n", True), ("z", False), ("", True)], records, turns="last")
    figures, rows = made(None, lambda: None)
    assert made.prompts == ["q / a / r", "s", "t"]
    assert figures == pytest.approx({"exact": 2 / 3, "stopped": 2 / 3, "empty": 1 / 3, "count": 3})
    assert [row["reference"] for row in rows] == ["b", "x", "u"] and rows[1]["references"] == ["x", "y", " z "]
    assert "references" not in rows[0] and rows[0]["output"] == " b\n", "as it was written"


def test_what_is_wrong_is_what_is_not_exact():
    row = {"output": " b\n", "reference": "a"}
    assert chat.wrong(row) and not chat.wrong(row | {"reference": "b"})
    assert not chat.wrong(row | {"references": ["a", "b "]}) and chat.wrong(row | {"references": ["a", "c"]})
    assert all(KINDS[name].wrong is chat.wrong for name in ("chat", "translation", "summary", "answer"))


def test_a_few_are_asked_and_none_where_nothing_asks():
    records = [Document(HERE, "text"), talk("q", "a"), talk("s", "b"), talk("t", "c")]
    made = answers([("a", True)] * 3, records, most=2)
    assert len(made(None, lambda: None)[1]) == 2 and made.prompts == ["q", "s"]
    made = answers([("a", True)] * 3, [talk("q", "a", "r", "b"), talk("s", "c", "t", "d")], most=3)
    assert len(made(None, lambda: None)[1]) == 3 and made.prompts == ["q", "q / a / r", "s"]
    assert answers([], records, dialogue=lambda record: None)(None, lambda: None) == ({}, [])
