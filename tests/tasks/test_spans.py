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


QUESTION = {"context": "abc def", "question": "q"}
MALFORMED = {
    "start is null": (QUESTION | {"answers": [{"text": "abc", "answer_start": None}]}, "answer_start None"),
    "start is a text": (QUESTION | {"answers": [{"text": "abc", "answer_start": "0"}]}, "answer_start '0'"),
    "answer is a number": (QUESTION | {"answers": [3]}, "answer 3 is neither"),
    "columns without a text": (QUESTION | {"answers": {"answer_start": [0]}}, "NoneType, not a list of texts"),
    "columns that are no lists": (QUESTION | {"answers": {"text": "abc", "answer_start": 0}}, "str, not a list"),
    "column of texts is one": (QUESTION | {"answers": {"text": "abc"}}, "str, not a list of texts"),
    "columns of two lengths": (QUESTION | {"answers": {"text": ["abc"], "answer_start": []}}, "a list of 1"),
    "labels are null": ({"userInput": {"text": "abc"}, "labels": None}, "None, not a list"),
    "slots without a text": ({"userInput": {"x": "abc"}, "labels": []}, "text is NoneType"),
    "place is a number": ({"text": "abc", "entities": [{"valueSpan": 3, "label": "x"}]}, "valueSpan is 3"),
    "quoted number": ({"text": "abc", "entities": [{"start": 0, "end": 1, "label": "x", "text": 5}]}, "is no text"),
    "names are a number": ({"tokens": ["a"], "tags": [0], "names": 5}, "names is 5"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_records_are_refused_by_their_place(tmp_path, name):
    record, message = MALFORMED[name]
    with pytest.raises(UserError, match=rf"data.jsonl:1 \(record 1\): .*{message}"):
        read([lines(tmp_path, record)])


def test_answers_as_columns(tmp_path):
    columns = {"text": ["abc", "def"], "answer_start": [0, 4]}
    assert read([lines(tmp_path, QUESTION | {"answers": columns})]).records[0].answers == (("abc", 0), ("def", 4))
