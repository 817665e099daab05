"""Events of users and items in the order of time."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.histories import REPEATED
from chinchilla_jax.tasks.read import read
from tests.tasks.made import lines

HEAD = "user_id:token\titem_id:token\ttimestamp:float\n"


def test_events_out_of_order_and_tied(tmp_path):
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "a.inter").write_text(head + "u\tc\t1\t9\nv\tx\t1\t1\nu\tb\t1\t5\nu\ta\t1\t5\n")
    (tmp_path / "b.csv").write_text("user,item,timestamp\nu,c,9\nu,b,5\nu,a,5\n")
    (tmp_path / "c.csv").write_text("userId,movieId,rating,timestamp\nu,c,1,9\nu,b,1,5\nu,a,1,5\n")  # MovieLens
    for name in ("a.inter", "b.csv", "c.csv"):
        assert read([tmp_path / name]).records[0].items == ("b", "a", "c")


@pytest.mark.parametrize(
    "text, message",
    [
        (HEAD + "u\ti\t1\nu\tj\tnan\n", r"a.inter:3 .*'nan' is not finite"),
        (HEAD + "u\ti\tinf\n", r"a.inter:2 .*'inf' is not finite"),
        (HEAD + "u\ti\tsoon\n", r"a.inter:2 .*'soon' is no number"),
        (HEAD + "u\t \t1\n", r"a.inter:2 .*item ' ' is neither"),
        (HEAD + "\ti\t1\n", r"a.inter:2 .*user '' is neither"),
        ("u\ti\t1\nu\tj\t2\n", "the first line of an .inter file is user_id:token"),
        ("uid:token\titem_id:token\ttimestamp:float\nu\ti\t1\n", "found uid, item_id, timestamp"),
    ],
)
def test_events_that_are_none(tmp_path, text, message):
    (tmp_path / "a.inter").write_text(text)
    with pytest.raises(UserError, match=message):
        read([tmp_path / "a.inter"])


@pytest.mark.parametrize("item", [None, {"a": 1}, "", ["a"]])
def test_items_without_a_name(tmp_path, item):
    with pytest.raises(UserError, match=r"data.jsonl:1 .*item .* is neither a name nor a number"):
        read([lines(tmp_path, {"user": "u", "items": ["a", item]})])
    with pytest.raises(UserError, match=r"data.jsonl:1 .*timestamp None is no number"):
        read([lines(tmp_path, {"user": "u", "item": "a", "timestamp": None})])


def test_events_that_are_repeated_are_kept_and_counted(tmp_path):
    (tmp_path / "a.inter").write_text(HEAD + "u\tj\t1\nu\tj\t1.0\nu\tj\t2\nv\tj\t1\n")
    found = read([tmp_path / "a.inter"])
    assert found.records[0].items == ("j",) * 3 and found.tally.counts == {REPEATED: 1}
