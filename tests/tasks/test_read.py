"""Every format of records, and every way in which files of examples are broken in the wild."""

import gzip
import json
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

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"


def asked(question="q", answer="a", **more):
    return [Turn("user", question, **more), Turn("assistant", answer)]


def said(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def lines(tmp_path, *records, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


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


# The same two records in other containers.
TABLES = {
    "a.csv": "text,label\nt,x\nu,y\n",
    "b.csv": "\ufefftext;label\r\nt;x\r\nu;y\r\n",
    "c.tsv": "Text\tLabel\tother\nt\tx\t1\nu\ty\t2\n",
    "d.tsv": "t\tx\nu\ty\n",
    "e.txt": "__label__x t\n__label__y u\n",
    "f.json": '[{"text": "t", "label": "x"}, {"text": "u", "label": "y"}]',
    "g.json": '{"data": [{"text": "t", "label": "x"}, {"text": "u", "label": "y"}]}',
    "h": "__label__x t\n\n__label__y u\n",
    "i": '{"text": "t", "label": "x"}\n{"text": "u", "label": "y"}\n',
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", TABLES)
def test_every_container(tmp_path, name, packed):
    path, data = tmp_path / (name + ".gz" * packed), TABLES[name].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    assert [(r.texts, r.labels) for r in read([path]).records] == [(("t",), ("x",)), (("u",), ("y",))]


def test_columns_by_name_and_by_number(tmp_path):
    (tmp_path / "a.csv").write_text("id,utterance,intent\n1,t,x\n")
    (tmp_path / "b.tsv").write_text("t\tx\t9\n")
    named = read([tmp_path / "a.csv"], text="utterance", label="intent").records
    numbered = read([tmp_path / "b.tsv"], text="0", label="1").records
    assert [(r.texts, r.labels) for r in (*named, *numbered)] == [(("t",), ("x",))] * 2


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")
    assert read([tmp_path / "a.txt"]).records[0].text == "One.\n\nTwo.\n"


def test_several_files_keep_their_places(tmp_path):
    paths = [lines(tmp_path, {"text": "t", "label": "x"}, name=name) for name in ("a.jsonl", "b.jsonl")]
    assert [r.where.file for r in read(paths).records] == [str(path) for path in paths]


# --- Ten ways to break a reader


def test_quoted_newlines_of_csv(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"one\ntwo, ""three""",x\nt,y\n')
    first, second = read([tmp_path / "a.csv"]).records
    assert first.texts == ('one\ntwo, "three"',) and (first.where.line, second.where.line) == (2, 4)


def test_a_mark_before_the_header(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\nt,x\n")
    assert len(read([tmp_path / "a.csv"]).records) == 1


def test_quotes_in_unquoted_tsv(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"so\tx\nit is 5" long\ty\n"two\nlines"\tz\n')
    assert [r.texts[0] for r in read([tmp_path / "a.tsv"]).records] == ['"so', 'it is 5" long', "two\nlines"]


def test_semicolons(tmp_path):
    (tmp_path / "a.csv").write_text("text;label\na, b, and c;x\n")
    assert read([tmp_path / "a.csv"]).records[0].texts == ("a, b, and c",)


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


def test_labels_with_a_divider(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nt\tgreet<div>book\n")
    assert read([tmp_path / "a.tsv"]).records[0].labels == ("greet", "book")


def test_conll_with_trailing_spaces_and_comments(tmp_path):
    text = "-DOCSTART- -X- O\n\n# sent_id = 1\nEU NNP B-ORG  \n# O\nsays VBZ O \n   \nHi UH O\n\n\n"
    (tmp_path / "a.conll").write_text(text)
    first, second = read([tmp_path / "a.conll"]).records
    assert (first.words, first.tags) == (("EU", "#", "says"), ("B-ORG", "O", "O")) and second.words == ("Hi",)
    assert (first.where.line, second.where.line) == (4, 8)


def test_answers_with_leading_blanks(tmp_path):
    assert read([lines(tmp_path, answered(3, " cat"))]).records[0].answers == (("cat", 4),)


def test_events_out_of_order_and_tied(tmp_path):
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "a.inter").write_text(head + "u\tc\t1\t9\nv\tx\t1\t1\nu\tb\t1\t5\nu\ta\t1\t5\n")
    (tmp_path / "b.csv").write_text("user,item,timestamp\nu,c,9\nu,b,5\nu,a,5\n")
    for name in ("a.inter", "b.csv"):
        assert read([tmp_path / name]).records[0].items == ("b", "a", "c")


# --- What is left out, and what is refused


def test_empty_messages_and_silent_dialogues_are_counted(tmp_path):
    records = [
        {"messages": said(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"))},
        {"messages": said(("assistant", "first"), ("user", ""))},
        {"messages": said(("user", "a"), ("assistant", " "))},
    ]
    found = read([lines(tmp_path, *records)])
    assert [r.turns for r in found.records] == [
        (Turn("user", "a\nb"), Turn("assistant", "c\nd")),
        (Turn("assistant", "first"),),
    ]
    assert found.tally.counts == {"empty messages left out": 2, "dialogues dropped: no assistant text": 1}
    equal = read(
        [
            lines(
                tmp_path,
                {"prompt": "q", "chosen": "a", "rejected": "b"},
                {"prompt": "q", "chosen": "a", "rejected": "a"},
            )
        ]
    )
    assert len(equal.records) == 1 and "equal" in equal.tally.lines()[0]


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


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "foo,bar,baz\n1,2,3\n", "--task.text"),
        ("a.csv", "text,label\na,b,c\n", r"a.csv:2 .*3 fields where there are 2 columns"),
        ("a.csv", 'text,label\n"a,b\n', "a.csv"),
        ("a.csv", "text,label\n", "no record"),
        ("a.xyz", "hello", "cannot tell its format"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"prompt": "a", "completion": "b"}\n',
            r"a.jsonl:2 .*the first record has the format",
        ),
    ],
)
def test_broken_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read([tmp_path / name])


def test_missing_damaged_and_foreign_files(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"x" * 999)[:20])
    (tmp_path / "b.jsonl").write_bytes("é".encode("latin-1"))
    (tmp_path / "c.jsonl").write_text('{"text": "t", "label": "x"}\n')
    for name, message in (("a.jsonl.gz", "damaged"), ("b.jsonl", "UTF-8"), ("none.jsonl", "no such file")):
        with pytest.raises(UserError, match=message):
            read([tmp_path / name])
    with pytest.raises(UserError, match=r"--task.label no: no such field; found text, label"):
        read([tmp_path / "c.jsonl"], label="no")
    with pytest.raises(UserError, match=r"no known format of chat"):
        read([tmp_path / "c.jsonl"], kinds=("chat",))


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
