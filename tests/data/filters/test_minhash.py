"""Signatures, bands and sketches beside the exact similarity of Python sets."""

import random

import numpy as np
import pytest

from chinchilla_jax.data.filters import minhash

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
