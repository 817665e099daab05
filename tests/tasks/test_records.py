"""Places of records, what was counted of them, and which of them belong to one group."""

from chinchilla_jax.tasks.records import Conversation, Labelled, Question, Spans, Tagged, Tally, Turn, Where
from tests.tasks.made import HERE, dialogue


def test_a_place_is_named_by_line_and_record():
    assert str(Where("a.csv", 3, 5)) == "a.csv:5 (record 3)"


def test_a_tally_names_how_often_and_where_first():
    one, other = Tally(), Tally()
    one.note("records dropped", Where("a", 1, 1))
    other.note("records dropped", Where("b", 7, 9), 1500)
    other.note("offsets moved", Where("b", 8, 10))
    one.add(other)
    assert one.lines() == [
        "1,501 records dropped; first at a:1 (record 1)", "1 offsets moved; first at b:10 (record 8)"
    ]  # fmt: skip
    assert other.counts == {"records dropped": 1500, "offsets moved": 1} and Tally().lines() == []


def test_records_of_the_same_text_are_one_group_whatever_their_label():
    """So that a text does not come to train and to validate; other texts are others."""
    one, two, other = (Labelled(HERE, (text, "u"), (label,)) for text, label in (("t", "x"), ("t", "y"), ("s", "x")))
    assert one.group == two.group != other.group
    assert dialogue(2, seed=1).group == dialogue(2, seed=1).group != dialogue(2, seed=2).group
    assert Turn("user", "q") == Turn("user", "q", more="", trained=True)


def test_every_record_that_a_head_judges_can_be_mistyped():
    """What is asked for stays true: a word keeps its tag, a span its text, a context its answers."""
    double = "".join
    assert Tagged(HERE, ("ab", "c"), ("O", "B-X")).mistyped(lambda t: t[1:]).words == ("b", "c")
    talk = Conversation(HERE, ("ab", "cd"), ("x", "y"), "name").mistyped(str.upper)
    assert talk == Conversation(HERE, ("AB", "CD"), ("x", "y"), "name")
    asked = Question(HERE, "a cat", "who?", (("cat", 2),))
    assert asked.mistyped(str.upper) == Question(HERE, "a cat", "WHO?", (("cat", 2),))
    record = Spans(HERE, "see Ada Lee go", ((4, 11, "PER"), (8, 11, "LAST")))
    moved = record.mistyped(lambda t: double(2 * c for c in t))
    found = [(moved.text[start:end], name) for start, end, name in moved.spans]
    assert found == [("AAddaa  LLeeee", "PER"), ("LLeeee", "LAST")] and moved.text == double(2 * c for c in record.text)
    assert record.mistyped(lambda t: "" if t == "Lee" else t) == record, "a span is never without a text"
    assert Spans(HERE, "", ()).mistyped(str.upper) == Spans(HERE, "", ())
