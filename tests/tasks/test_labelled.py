"""Records with labels."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.read import read
from tests.tasks.made import lines


def test_labels_with_a_divider(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nt\tgreet<div>book\n")
    assert read([tmp_path / "a.tsv"]).records[0].labels == ("greet", "book")


def test_labels_by_number(tmp_path):
    """As in GoEmotions, whose names stand in a file of their own."""
    (tmp_path / "a.tsv").write_text("t\t0,2\tid\nu\t1\tid\nv\tjoy\tid\nw\t9\tid\n")
    how = {"text": "0", "label": "1", "divider": ","}
    found = read([tmp_path / "a.tsv"], labels=("anger", "joy", "pride"), **how)
    assert [r.labels for r in found.records] == [("anger", "pride"), ("joy",), ("joy",), ("9",)]
    assert list(found.tally.counts.values()) == [2]
    assert read([tmp_path / "a.tsv"], labels=("1", "2", "3"), **how).records[0].labels == ("0", "2")


def said(name, *pairs):
    return [{"talk": name, "text": text, "label": label} for text, label in pairs]


def test_texts_of_a_conversation_are_one_record(tmp_path):
    """In the order of the file, though others stand between them; the same name in another file is another's."""
    one, two = (
        said(1, ("hi", "greet"), ("a flight", "book<div>ask"), ("bye", "end")),
        said(2, ("ok", "yes"), (" ", "no")),
    )
    paths = [lines(tmp_path, one[0], two[0], one[1], two[1], name="a.jsonl"), lines(tmp_path, one[2], name="b.jsonl")]
    found = read(paths, conversation="talk")
    first, second, third = found.records
    assert (first.texts, first.labels, first.group) == (("hi", "a flight"), ("greet", "book"), "1")
    assert first.judged == (("hi", "greet"), ("a flight", "book")) and first.where.line == 1
    assert [place.number for place in first.places] == [1, 3]
    assert third.judged == (("bye", "end"),) and third.where.file == str(paths[1])
    assert second.judged == (("ok", "yes"),) and second.where.line == 2
    assert sorted(found.tally.counts.values()) == [1, 1], "an empty text, and a text with two labels"


@pytest.mark.parametrize(
    "record, message",
    [
        ({"text": "a", "label": "x"}, "--task.conversation talk: no such field"),
        ({"talk": 1, "prompt": "a", "completion": "b"}, "no such field of a text with a label"),
        ({"talk": None, "text": "a", "label": "x"}, r"data.jsonl:1 .*None names no conversation; name it"),
        ({"talk": " ", "text": "a", "label": "x"}, r"data.jsonl:1 .*' ' names no conversation; name it"),
        ({"talk": 1, "text": "a", "label": []}, r"data.jsonl:1 .*without a label"),
        ({"talk": 1, "premise": "a", "hypothesis": "b", "label": "x"}, "belongs to records of one text"),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path, record, message):
    with pytest.raises(UserError, match=message):
        read([lines(tmp_path, record)], conversation="talk")
