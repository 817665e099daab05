"""Places of answers and entities in texts."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks import spans
from chinchilla_jax.tasks.read import read
from tests.tasks.made import lines


def test_a_start_of_0_that_is_left_out(tmp_path):
    record = {"userInput": {"text": "13 of us"}, "labels": [{"slot": "people", "valueSpan": {"endIndex": 2}}]}
    assert read([lines(tmp_path, record)]).records[0].spans == ((0, 2, "people"),)


def answered(start, text="cat"):
    return {"context": "the cat sat by the cat", "question": "who", "answers": [{"text": text, "answer_start": start}]}


def test_offsets_that_are_off(tmp_path):
    found = read([lines(tmp_path, *[answered(4)] * 99, answered(17))])
    assert found.records[-1].answers == (("cat", 19),) and "moved" in found.tally.lines()[0]
    with pytest.raises(UserError, match=r"data.jsonl:50 .*2 of 100 offsets"):
        read([lines(tmp_path, *[answered(4)] * 49, answered(17), *[answered(4)] * 49, answered(0, "dog"))])


def test_answers_with_leading_blanks(tmp_path):
    assert read([lines(tmp_path, answered(3, " cat"))]).records[0].answers == (("cat", 4),)


def several(*texts):
    told = [{"text": text, "answer_start": 4} for text in texts]
    return {"context": "the cat sat", "question": "who", "answers": told}


def test_blank_answers_are_none(tmp_path):
    found = read([lines(tmp_path, several("", "cat"), several(" "), several(None) | {"answers": [""]})])
    assert [record.answers for record in found.records] == [(("cat", 4),), (), ()]
    assert found.tally.counts == {spans.BLANK: 3}


def test_a_reference_that_is_not_there_leaves_the_others(tmp_path):
    rows = [*[several("cat")] * 300, several("dog", "cat"), several("dog")]
    found = read([lines(tmp_path, *rows)])
    assert len(found.records) == 301 and found.records[-1].answers == (("cat", 4),)
    assert found.tally.counts == {spans.ABSENT: 1, spans.GONE: 1}
    with pytest.raises(UserError, match="2 of 4 offsets"):
        read([lines(tmp_path, several("dog", "cat"), several("cat", "dog"))])
