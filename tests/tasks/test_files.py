"""Containers of records: tables, JSON, CoNLL, text, aligned files, and how each is broken in the wild."""

import gzip

import pytest

from chinchilla_jax.data import fs
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.read import read
from tests.tasks.made import SHARED


def test_columns_of_two_languages_either_way(tmp_path):
    (tmp_path / "pairs.tsv").write_text("Guten Tag\tgood day\tx\n")
    given = read([tmp_path / "pairs.tsv"], ("chat",), text="1", label="0").records
    assert [turn.content for turn in given[0].turns] == ["good day", "Guten Tag"]


def test_two_aligned_files(tmp_path):
    (tmp_path / "a.en.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.de.txt").write_text("eins\n\nzwei\n")
    found = read([f"{tmp_path}/a.en.txt+{tmp_path}/a.de.txt"], ("chat",)).records
    assert [[turn.content for turn in record.turns] for record in found] == [["one", "eins"], ["two", "zwei"]]
    (tmp_path / "a.de.txt").write_text("eins\n")
    with pytest.raises(UserError, match="3 lines and 1"):
        read([f"{tmp_path}/a.en.txt+{tmp_path}/a.de.txt"], ("chat",))


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


def test_conll_with_trailing_spaces_and_comments(tmp_path):
    text = "-DOCSTART- -X- O\n\n# sent_id = 1\nEU NNP B-ORG  \n# O\nsays VBZ O \n   \nHi UH O\n\n\n"
    (tmp_path / "a.conll").write_text(text)
    first, second = read([tmp_path / "a.conll"]).records
    assert (first.words, first.tags) == (("EU", "#", "says"), ("B-ORG", "O", "O")) and second.words == ("Hi",)
    (tmp_path / "b.conll").write_text("# by hand\nThe DT B-NP O\n# # I-NP O\n# by hand\n1 CD I-NP B-X\n")
    assert read([tmp_path / "b.conll"]).records[0].words == ("The", "#", "1")
    assert (first.where.line, second.where.line) == (4, 8)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "foo,bar,baz\n1,2,3\n", "--task.text"),
        ("a.csv", "text,label\na,b,c\n", r"a.csv:2 .*3 fields where there are 2 columns"),
        ("a.csv", 'text,label\n"a,b\n', "a.csv"),
        ("a.csv", "text,label\n", "no record"),
        ("a.json", " ", "an empty file; write"),
        ("a.xyz", "hello", "cannot tell its format"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"prompt": "a", "completion": "b"}\n',
            r"a.jsonl:2 .*the first record has the format",
        ),
        ("a.json", '{"data": [{"paragraphs": [{"context": "abc", "qas": ["x"]}]}]}', "a.json: entry 1: qas"),
        ("a.json", '{"data": [{"paragraphs": [{"context": "abc", "qas": null}]}]}', "a.json: entry 1: qas None"),
        ("a.json", '{"data": [{"paragraphs": ["x"]}]}', "a.json: entry 1: paragraph 'x' is no object"),
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
    (tmp_path / "dir").mkdir()
    for name, message in (
        ("a.jsonl.gz", "damaged"), ("b.jsonl", "UTF-8"), ("none.jsonl", "no such file"), ("dir", "is a folder")
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read([tmp_path / name])
    for path, message in ((tmp_path / "c.jsonl" / "d.tsv", "Not a directory"), ("x" * 300 + "+b", "name too long")):
        with pytest.raises(UserError, match=f"{message}; name a file"):
            read([path])
    with pytest.raises(UserError, match=r"--task.label no: no such field; found text, label"):
        read([tmp_path / "c.jsonl"], label="no")
    with pytest.raises(UserError, match=r"no known format of chat"):
        read([tmp_path / "c.jsonl"], kinds=("chat",))


def test_half_of_a_character_is_refused_where_it_is_read(tmp_path):
    """A pair of surrogates is a character; one of them alone breaks every tokenizer."""
    whole, half = '{"text": "\\ud83d\\ude00", "label": "x"}', '{"text": "\\ud83d", "label": "x"}'
    for name, text in (("a.jsonl", f"{whole}\n{half}\n"), ("a.json", f"[{whole},\n{half}]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=rf"{name}:2 .*a lone surrogate .*ud83d"):
            read([tmp_path / name])


def test_two_columns_without_a_known_header(tmp_path):
    """The first line is read as a record, which is said; a header that the user's names are not in is refused."""
    (tmp_path / "a.csv").write_text("review,sentiment\ngood,pos\n")
    found = read([tmp_path / "a.csv"])
    assert found.records[0].texts == ("review",) and "whose first line is read as a record" in found.tally.lines()[0]
    assert not read([tmp_path / "a.csv"], text="0", label="1").tally.counts
    assert len(read([tmp_path / "a.csv"], text="review", label="sentiment").records) == 1
    with pytest.raises(UserError, match="no column is known among 'review, sentiment'"):
        read([tmp_path / "a.csv"], text="Review")


def test_lists_of_a_json_file(tmp_path):
    """As in CLINC150: several lists, of pairs without names."""
    path = tmp_path / "a.json"
    path.write_text('{"train": [["t", "x"], ["u", "y"]], "test": [["v", "x"]]}')
    assert [r.texts[0] for r in read([f"{path}:train"]).records] == ["t", "u"]
    assert read([f"{path}:test"], text="1", label="0").records[0].labels == ("v",)
    for name, message in (("", "here train, test, name"), (":dev", "here train, test, name")):
        with pytest.raises(UserError, match=message):
            read([f"{path}{name}"])
    (tmp_path / "b.csv").write_text("text,label\nt,x\n")
    with pytest.raises(UserError, match="holds lists with names"):
        read([f"{tmp_path}/b.csv:train"])
    (tmp_path / "c.jsonl").write_text('["t", "x", 1]\n')
    assert read([tmp_path / "c.jsonl"], text="0", label="1").records[0].labels == ("x",)
    with pytest.raises(UserError, match=r"--task\.text 0"):
        read([tmp_path / "c.jsonl"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/tasks here")
def test_clinc150():
    path = SHARED / "intent" / "clinc150" / "data_full.json.gz"
    found = read([f"{path}:train"]).records
    assert len(found) == 15_000 and len({r.labels for r in found}) == 150


def test_zstd_and_other_packings(tmp_path, monkeypatch):
    import pyarrow

    monkeypatch.setattr(fs, "opened", None)  # a file is read once, by `decoded`

    whole = pyarrow.compress(b'{"text": "t", "label": "x"}\n' * 99, codec="zstd", asbytes=True)
    (tmp_path / "a.jsonl.zst").write_bytes(whole)
    assert len(read([tmp_path / "a.jsonl.zst"]).records) == 99
    for data, message in ((whole[:20], "damaged"), (b"PK\x03\x04", "zip"), (b"BZh9", "bzip2"), (b"PAR1", "parquet")):
        (tmp_path / "b.jsonl.zst").write_bytes(data)
        with pytest.raises(UserError, match=message):
            read([tmp_path / "b.jsonl.zst"])


def test_pairs_and_tagged_words_in_text_files(tmp_path):
    (tmp_path / "pairs.txt").write_text("good day\tGuten Tag\nso\tja\n")
    assert len(read([tmp_path / "pairs.txt"], ("chat",)).records) == 2
    assert read([tmp_path / "pairs.txt"]).records[0].labels == ("Guten Tag",)
    assert len(read([tmp_path / "pairs.txt"], ("text",)).records) == 1
    (tmp_path / "lines.txt").write_text("good day\n")
    with pytest.raises(UserError, match=r"two aligned files are written A\+B"):
        read([tmp_path / "lines.txt"], ("chat",))
    for name in ("a.txt", "a.tsv", "a.iob2"):
        (tmp_path / name).write_text("EU\tB-ORG\nsays\tO\n\nHi\tO\n")
        assert [r.words for r in read([tmp_path / name], ("tags",)).records] == [("EU", "says"), ("Hi",)]


def test_columns_of_conll_by_number(tmp_path):
    (tmp_path / "a.conll").write_text("# id = 1\n1\tEU\tB-ORG\t_\n2\tsays\tO\t_\n")
    found = read([tmp_path / "a.conll"], ("tags",), text="1", label="2").records[0]
    assert (found.words, found.tags) == (("EU", "says"), ("B-ORG", "O"))
    (tmp_path / "a.conll").write_text("1\tEU\tB-ORG\n2\tsays\n")
    with pytest.raises(UserError, match=r"a.conll:2 .*2 columns, and"):
        read([tmp_path / "a.conll"], ("tags",), text="1", label="2")
