"""Shingles, signatures and runs of words beside Python sets."""

import gzip
import json
import random

import numpy as np
import pyarrow.parquet
import pytest

from chinchilla_jax.data.filters import contamination, minhash
from chinchilla_jax.data.filters.words import folded_words
from chinchilla_jax.errors import UserError

VOCABULARY = [f"w{n}" for n in range(3000)]


def text(seed: int, words: int = 200) -> str:
    """Words drawn at random."""
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def changed(original: str, share: float, seed: int) -> str:
    """The text with a share of its words replaced."""
    draw, words = random.Random(seed), original.split()
    for place in draw.sample(range(len(words)), round(share * len(words))):
        words[place] = draw.choice(VOCABULARY)
    return " ".join(words)


def jaccard(a: str, b: str, n: int) -> float:
    """Exact similarity of the shingles."""
    one, two = ({tuple(words[i : i + n]) for i in range(len(words) - n + 1)} for words in (a.split(), b.split()))
    return len(one & two) / len(one | two)


@pytest.mark.parametrize("written, words", [
    ("The Sea, the sea!", ["the", "sea", "the", "sea"]), ("x_1 = f(Y)\n\tz", ["x", "1", "f", "y", "z"]), (" \n", []),
])  # fmt: skip
def test_folded_words(written, words):
    found = folded_words(["before", written, "after"])
    lower = "\n".join(["before", written.lower(), "after", ""])
    own = range(found.first[1], found.first[2])
    assert [lower[found.starts[i] : found.ends[i]] for i in own] == words


def test_equal_words_have_equal_hashes_wherever_they_stand():
    found = folded_words(["one two one", "TWO\tone 二 one"])
    hashes = found.hashes.tolist()
    assert hashes[0] == hashes[2] == hashes[4] == hashes[6] and hashes[1] == hashes[3] and len(set(hashes)) == 3


def test_similarity_is_estimated():
    pairs = [(text(n), changed(text(n), share, n)) for n in range(40) for share in (0.0, 0.02, 0.1, 0.3, 1.0)]
    sketches = [minhash.sketch(minhash.signatures([pair[side] for pair in pairs], 3)[0]) for side in (0, 1)]
    found = minhash.similarity(*sketches)
    error = found - np.array([jaccard(a, b, 3) for a, b in pairs])
    assert np.abs(error).max() < 0.2 and np.sqrt((error**2).mean()) < 0.045 and abs(error.mean()) < 0.01


def test_a_signature_does_not_depend_on_its_batch():
    texts = [text(n, n) for n in range(30)] + ["", "...", "one two", "two one"]
    whole, there = minhash.signatures(texts, 3)
    assert there.tolist() == [len(t.split()) > 0 and t != "..." for t in texts]
    for number, one in enumerate(texts):
        alone, _ = minhash.signatures([one], 3)
        assert (alone[0] == whole[number]).all()
    assert (whole[-1] != whole[-2]).any()
    assert (minhash.bands(whole, there)[~there] == 0).all()


def recall(share: float) -> float:
    """Pairs with a common band that pass the estimate, of 400."""
    originals = [text(n) for n in range(400)]
    (one, there), (two, _) = (
        minhash.signatures(texts, 3) for texts in (originals, [changed(t, share, n) for n, t in enumerate(originals)])
    )
    common = (minhash.bands(one, there) == minhash.bands(two, there)).any(axis=1)
    return (common & (minhash.similarity(minhash.sketch(one), minhash.sketch(two)) >= minhash.threshold(0.8, 3))).mean()


def test_a_tenth_of_the_words_changed_is_near_and_a_third_is_not():
    assert recall(0.05) >= 0.99 and recall(0.1) >= 0.95 and recall(0.33) <= 0.05


def test_the_threshold_is_that_of_words():
    assert minhash.threshold(0.8, 1) == pytest.approx(0.8 - 2.5 * 0.0354, abs=1e-3)
    assert minhash.threshold(0.8, 3) < minhash.threshold(0.8, 2) < minhash.threshold(0.8, 1)


def test_planted_runs_are_found_through_case_and_white_space(tmp_path):
    exam = tmp_path / "exam.jsonl"
    questions = [text(n, 40) for n in range(100)]
    exam.write_text("".join(json.dumps({"q": {"text": [q]}, "n": 3}) + "\n" for q in questions))
    finder = contamination.Contamination(contamination.collect((str(exam),), 13), 13)
    clean = [text(1000 + n, 150) for n in range(300)]
    assert not finder.hits(clean).any()
    planted = []
    for number, question in enumerate(questions):
        start = number % 27
        run = question.split()[start : start + 13]
        words = clean[number].split()
        planted.append(" ".join(words[:50]) + "\n" + "\u00a0 \n".join(run).upper() + ".\t" + " ".join(words[50:]))
    assert (finder.hits(planted) == 1).all()
    twelve = [" ".join(question.split()[:12]) for question in questions]
    assert not finder.hits([a + " " + b for a, b in zip(clean, twelve)]).any()


def test_evaluation_sets_are_read_as_they_come(tmp_path):
    """Compressed, as parquet, nested, and with a line separator (U+2028) inside a JSON string."""
    question = text(1, 40)
    record = {"q": {"text": [question]}, "n": 3, "note": "one\u2028two"}
    plain = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    (tmp_path / "a.jsonl").write_bytes(plain)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "c.json").write_bytes(plain)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), tmp_path / "d.parquet")
    expected = contamination.folded_words([question]).grams(13)[1]
    for path in sorted(tmp_path.iterdir()):
        assert np.isin(expected, contamination.collect((str(path),), 13)).all(), path


def test_files_without_a_run_are_refused(tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'"a"\n' * 99)[:-9])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    for name, message in (
        ("short.txt", "no run of 13 words"), ("none.txt", "no such file"), (".", "no such file"),
        ("cut.jsonl.gz", "damaged"), ("cut.parquet", "damaged"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            contamination.collect((str(tmp_path / name),), 13)
