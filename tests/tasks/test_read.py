"""Every format of records, and every way in which files of examples are broken in the wild."""

from pathlib import Path

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.read import read
from chinchilla_jax.tasks.records import (
    Dialogue,
    Document,
    History,
    Labelled,
    Preference,
    Question,
    Spans,
    Tagged,
    Turn,
)
from tests.tasks.made import lines, said

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"


def asked(question="q", answer="a", **more):
    return [Turn("user", question, **more), Turn("assistant", answer)]


CHAT = said(("system", "s"), ("user", "q"), ("assistant", "a"))
# A record as it stands in a file, and what it becomes (turns, or the fields behind `where`).
RECORDS = {
    "text": ({"text": "A text."}, (Document, "A text.")),
    "prompt": ({"prompt": "q", "completion": "a"}, (Dialogue, asked())),
    "prompt as messages": ({"prompt": CHAT[:2], "completion": CHAT[2:]}, (Dialogue, [Turn("system", "s"), *asked()])),
    "alpaca": ({"instruction": "q", "input": "i", "output": "a"}, (Dialogue, asked(more="i"))),
    "alpaca with system": (
        {"instruction": "q", "input": "", "output": "a", "system": "s"},
        (Dialogue, [Turn("system", "s"), *asked()]),
    ),
    "question": ({"question": "q", "answer": "a"}, (Dialogue, asked())),
    "messages": ({"messages": CHAT}, (Dialogue, [Turn("system", "s"), *asked()])),
    "developer, parts, weight": (
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "s"}]},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a", "weight": 0},
            ]
        },
        (Dialogue, [Turn("system", "s"), Turn("user", "q"), Turn("assistant", "a", trained=False)]),
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        (Dialogue, asked()),
    ),
    "preference": ({"prompt": "q", "chosen": "a", "rejected": "b"}, (Preference, asked()[:1], asked()[1:])),
    "preference as messages": (
        {"chosen": CHAT, "rejected": [*CHAT[:2], *said(("assistant", "b"))]},
        (Preference, [Turn("system", "s"), Turn("user", "q")], asked()[1:]),
    ),
    "prompt inside the endings": (
        {"prompt": CHAT[:2], "chosen": CHAT, "rejected": [*CHAT[:2], *said(("assistant", "b"))]},
        (Preference, [Turn("system", "s"), Turn("user", "q")], asked()[1:]),
    ),
    "label": ({"text": "t", "label": "good"}, (Labelled, ("t",), ("good",))),
    "label by number": ({"sentence": "t", "label": 3}, (Labelled, ("t",), ("3",))),
    "label by a number with a point": ({"text": "t", "label": 3.0}, (Labelled, ("t",), ("3",))),
    "pair of GLUE": ({"sentence1": "t", "sentence2": "u", "label": 1}, (Labelled, ("t", "u"), ("1",))),
    "labels": ({"text": "t", "labels": [2, 0]}, (Labelled, ("t",), ("2", "0"))),
    "several labels": ({"text": "t", "label": ["b", "a", "b"]}, (Labelled, ("t",), ("b", "a"))),
    "entailment": ({"premise": "t", "hypothesis": "u", "label": "no"}, (Labelled, ("t", "u"), ("no",))),
    "pair": ({"text_a": "t", "text_b": "u", "label": "no"}, (Labelled, ("t", "u"), ("no",))),
    "entity sentiment": ({"text": "t", "entities": {"E": "up"}}, (Labelled, ("E", "t"), ("up",))),
    "tags": ({"tokens": ["A", "b"], "tags": ["B-x", "O"]}, (Tagged, ("A", "b"), ("B-x", "O"))),
    "tags by number": (
        {"tokens": ["A", "b"], "ner_tags": [1, 0], "names": ["O", "B-x"]},
        (Tagged, ("A", "b"), ("B-x", "O")),
    ),
    "spans": ({"text": "a bc", "entities": [{"start": 2, "end": 4, "label": "x"}]}, (Spans, "a bc", ((2, 4, "x"),))),
    "spans of spaCy": ({"text": "a bc", "entities": [[2, 4, "x"]]}, (Spans, "a bc", ((2, 4, "x"),))),
    "squad": (
        {"context": "a bc", "question": "q", "answers": [{"text": "bc", "answer_start": 2}]},
        (Question, "a bc", "q", (("bc", 2),)),
    ),
    "answers as texts": (
        {"context": "c", "question": "q", "answers": ["x", "y"]},
        (Question, "c", "q", (("x", -1), ("y", -1))),
    ),
    "one answer": ({"context": "c", "question": "q", "answer": "c"}, (Question, "c", "q", (("c", -1),))),
    "impossible": ({"context": "c", "question": "q", "answers": [], "is_impossible": True}, (Question, "c", "q", ())),
    "translation": ({"translation": {"en": "q", "de": "a"}}, (Dialogue, asked())),
    "source and target": ({"source": "q", "target": "a"}, (Dialogue, asked())),
    "summary": ({"document": ["One.", "Two."], "summary": ["a", "b"]}, (Dialogue, asked("One. Two."))),
    "highlights": ({"article": "q", "highlights": "a"}, (Dialogue, asked())),
    "history": ({"user": "u", "items": ["i", 2]}, (History, "u", ("i", "2"))),
}


@pytest.mark.parametrize("name", RECORDS)
def test_every_format(tmp_path, name):
    """Five records of a format; the third stands after a blank line, which counts as a line and as no record."""
    record, (kind, *expected) = RECORDS[name]
    path = lines(tmp_path, *[record] * 5)
    path.write_text(path.read_text().replace("\n", "\n\n", 2))
    found = read([path]).records
    assert len(found) == 5 and str(found[2].where) == f"{path}:5 (record 3)"
    for made in found:
        assert isinstance(made, kind)
        values = [value for key, value in vars(made).items() if key != "where"][: len(expected)]
        assert [
            list(v) if isinstance(v, tuple) and isinstance(e, list) else v for v, e in zip(values, expected)
        ] == expected


def test_several_files_keep_their_places(tmp_path):
    paths = [lines(tmp_path, {"text": "t", "label": "x"}, name=name) for name in ("a.jsonl", "b.jsonl")]
    assert [r.where.file for r in read(paths).records] == [str(path) for path in paths]


OWN = {
    "words": ({"words": ["A", "b"], "ner": ["B-x", "O"]}, {"text": "words", "label": "ner"}, ("A", "b"), ("B-x", "O")),
    "spans": ({"said": "A b", "found": [[0, 1, "x"]]}, {"text": "said", "label": "found"}, "A b", ((0, 1, "x"),)),
    "fields in a field": ({"in": {"w": ["A"], "t": ["O"]}}, {"text": "in.w", "label": "in.t"}, ("A",), ("O",)),
}


@pytest.mark.parametrize("name", OWN)
def test_own_names_of_tags(tmp_path, name):
    record, names, *expected = OWN[name]
    _, *values = vars(read([lines(tmp_path, record)], ("tags",), **names).records[0]).values()
    assert values == expected


def test_fields_that_are_not_read_are_said(tmp_path):
    found = read([lines(tmp_path, {"text": "t", "intent": "x"})])
    assert found.kind == "text" and "none of their other fields" in found.tally.lines()[0]
    assert not read([lines(tmp_path, {"text": "t", "intent": "x"})], ("text",)).tally.counts


# --- Ten ways to break a reader


# --- What is left out, and what is refused


REFUSED = {
    "unknown fields": ({"foo": 1}, r"data.jsonl:1 .*the fields foo are no known format.*messages"),
    "not JSON": ("{", "data.jsonl:1 .*not JSON"),
    "not an object": ("[1]\n", "expected an object"),
    "tools": ({"conversations": [{"from": "function_call", "value": "f()"}]}, "function_call"),
    "role": ({"messages": [{"role": "tool", "content": "x"}]}, "role 'tool'"),
    "role of no name": ({"messages": [{"role": ["user"], "content": "x"}]}, "role .'user'. is none"),
    "speaker of no name": ({"conversations": [{"from": {}, "value": "x"}]}, "a message from {}"),
    "part without a text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "has NoneType for content",
    ),
    "sentences of numbers": ({"document": [1, 2], "summary": "s"}, "are to be texts"),
    "no answer": ({"prompt": "p", "chosen": None, "rejected": "r"}, "chosen is null|no known format"),
    "image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
    "number": ({"prompt": 5, "completion": "a"}, "prompt is int, not a text"),
    "tag of no scheme": ({"tokens": ["a"], "tags": ["PER"]}, "tag 'PER' is neither O nor B-TYPE"),
    "tag without a type": ({"tokens": ["a"], "tags": ["B-"]}, "tag 'B-' is neither O nor B-TYPE"),
    "empty label": ({"text": "t", "label": ""}, "empty label"),
    "label": ({"text": "t", "label": 0.5}, "label 0.5"),
    "lengths": ({"tokens": ["a"], "tags": []}, "1 tokens and 0 tags"),
    "outside": ({"text": "ab", "entities": [[0, 9, "x"]]}, "outside"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_place(tmp_path, name):
    record, message = REFUSED[name]
    path = lines(tmp_path, record) if isinstance(record, dict) else tmp_path / "data.jsonl"
    if isinstance(record, str):
        path.write_text(record)
    with pytest.raises(UserError, match=message):
        read([path])


# Counts from the sets' own README; but for two quoted newlines in MultiDoGO, which it left out.
SETS = {
    "intent/banking77/train.csv.gz": (10_003, {"label": "category"}),
    "sentiment/uci_sentences/train.tsv": (2_404, {}),
    "sentiment/uci_sentences/test.tsv": (572, {}),
    "sentiment/goemotions/dev.tsv.gz": (5_426, {"text": "0", "label": "1"}),
    "sentiment_finance/sentfin/test.jsonl.gz": (1_871, {}),
    "sentiment_zh/asap_sample/test.csv.gz": (100, {"text": "reviewbody", "label": "star"}),
    "classification_zh/csl_category/test.tsv.gz": (1_000, {"text": "1", "label": "2"}),
    "customer_service/multidogo_airline/test.tsv.gz": (3_925, {"text": "utterance", "label": "intent"}),
    "ner/wnut17/test.conll.gz": (1_287, {}),
    "ner/uner_zh_gsdsimp/test.conll.gz": (500, {}),
    "qa/restaurant8k_spans/test.json.gz": (3_731, {}),
    "qa/xquad/xquad.en.json.gz": (1_190, {}),
    "qa/cmrc2018/trial.json.gz": (1_002, {}),
    "qa/fairytaleqa/test.jsonl.gz": (1_007, {}),
    "mt/tatoeba_en-de/test.tsv.gz": (1_000, {"kinds": ("chat",)}),
    "summarisation/scitldr_a/test.jsonl.gz": (618, {}),
    "dialogue/sgd/test.jsonl.gz": (500, {}),
    "dialogue/crosswoz/test.jsonl.gz": (500, {}),
    "recommendation/movietweetings/ratings.inter.gz": (11_601, {}),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/tasks here")
@pytest.mark.parametrize("name", SETS)
def test_real_sets(name):
    count, how = SETS[name]
    assert len(read([SHARED / name], **how).records) == count


def test_a_null_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data.jsonl:2 .*label is null; give it a value"):
        read([lines(tmp_path, {"text": "a", "label": "x"}, {"text": "b", "label": None})])
