"""Faulty text, held to the plain evaluation at rate 0 and to sums by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.data.batches import valid_batch, valid_count
from chinchilla_jax.data.split import Split
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.evaluation import noise
from chinchilla_jax.finetuning.prompts import prefixed

RATES = (0.02, 0.1)


class Counting:
    """A model that gives a token the loss of its number: the sums are then known without any model."""

    rows = 3

    def __init__(self, ids=()):
        config = SimpleNamespace(train=SimpleNamespace(seq_len=16))
        self.program = SimpleNamespace(config=config, recipe=SimpleNamespace(fed=lambda batch: prefixed(batch, ids)))
        self.seen = []

    def sums(self, params, batches, poll):
        self.seen = [self.program.recipe.fed(batch) for batch in batches]
        for _ in self.seen:
            poll()
        return SimpleNamespace(loss=sum(float((b.weights * b.targets).sum()) for b in self.seen))


@pytest.fixture(scope="module")
def store(tiny_store):
    return TokenStore.open(tiny_store)


@pytest.fixture(scope="module")
def texts(store):
    """All documents of the validation set, in whole."""
    tokenizer, split = store.tokenizer, store.valid
    ends = [*split.starts[1:].tolist(), len(split.tokens) - 1]
    return [tokenizer.decode(split.tokens[start + 1 : end]) for start, end in zip(split.starts.tolist(), ends)]


def test_rate_0_is_the_plain_evaluation(store, texts):
    """The same windows, tokens, targets, weights, segments and positions as those of the store; and the same bytes."""
    model = Counting()
    noise.typo_report(None, model, texts, store.tokenizer, (), 0)
    assert len(model.seen) == valid_count(store.valid, 16, model.rows)
    for number, found in enumerate(model.seen):
        expected = valid_batch(store.valid, 16, model.rows, number)
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), value)
    assert sum(len(text.encode()) for text in texts) == store.valid.bytes


def test_typos_keep_the_targets_clean_and_count_their_bytes(store, texts):
    model = Counting()
    found = noise.typo_report(None, model, texts, store.tokenizer, RATES, 0)
    assert list(found["typo"]) == [0.0, *RATES] and found["typo_scored"][0.0] == 1
    assert 1 > found["typo_scored"][0.02] > found["typo_scored"][0.1] > 0.5
    sizes = np.array([len(piece) for piece in store.tokenizer.pieces])
    scored = sum(float((b.weights * sizes[b.targets]).sum()) for b in model.seen)
    assert found["typo_scored"][0.1] == scored / store.valid.bytes
    loss = sum(float((b.weights * b.targets).sum()) for b in model.seen)
    assert found["typo"][0.1] == pytest.approx(loss / np.log(2) / scored)
    again = noise.typo_report(None, Counting(), texts, store.tokenizer, RATES, 0)
    assert again == found != noise.typo_report(None, Counting(), texts, store.tokenizer, RATES, 1)


def test_bytes_that_a_soft_prompt_pushes_out_of_a_window_are_not_counted(store, texts):
    """The bits are those of the bytes that are read, which are all of them without a prompt."""
    ids, sizes = (60000, 60001, 60002), np.array([len(piece) for piece in store.tokenizer.pieces])

    def bits(model):
        loss, read = (sum(float((b.weights * x[b.targets]).sum()) for b in model.seen) for x in (every, sizes))
        return pytest.approx(loss / np.log(2) / read), read / store.valid.bytes

    every = np.arange(len(sizes))
    model = Counting(ids)
    found = noise.typo_report(None, model, texts, store.tokenizer, (0.1,), 0)
    assert (found["typo"][0.1], found["typo_scored"][0.1]) == bits(model)
    assert 0.5 < found["typo_scored"][0.1] < found["typo_scored"][0.0] < 1
    assert noise.word_report(None, model, texts, store.tokenizer, (0.1,), 0)[0.1] == bits(model)[0]
    assert noise.segmentation_report(None, model, texts, store.tokenizer, 0) == bits(model)[0]


def test_scored_targets_are_clean_tokens_in_order_and_at_most_once(store, texts):
    clean = store.tokenizer.encode_array(texts[0])
    tokens, targets, weights = noise.mistyped(texts[0], store.tokenizer, 0.1, np.random.default_rng(0))
    assert len(tokens) == len(targets) == len(weights) and tokens[0] == store.tokenizer.separator
    rest = iter([*clean.tolist(), store.tokenizer.separator])
    assert all(target in rest for target in targets[weights > 0].tolist())  # a subsequence


def test_wrong_words_stand_in_the_input_alone(store, texts):
    clean, faulty = Counting(), Counting()
    plain = noise.typo_report(None, clean, texts, store.tokenizer, (), 0)["typo"]
    assert noise.word_report(None, Counting(), texts, store.tokenizer, (0.0,), 0) == plain
    found = noise.word_report(None, faulty, texts, store.tokenizer, (0.25,), 0)
    same = real = 0
    for one, two in zip(clean.seen, faulty.seen, strict=True):
        np.testing.assert_array_equal(one.targets, two.targets)
        np.testing.assert_array_equal(one.segments, two.segments)
        words = (one.segments > 0) & (one.tokens != store.tokenizer.separator)
        assert (one.tokens[~words] == two.tokens[~words]).all()
        same, real = same + (one.tokens == two.tokens)[words].sum(), real + words.sum()
    assert abs(1 - same / real - 0.25) < 4 * np.sqrt(0.25 * 0.75 / real) + 1 / len(store.tokenizer.pieces)
    assert found == noise.word_report(None, Counting(), texts, store.tokenizer, (0.25,), 0)


def test_sampled_pieces_are_the_same_text_in_more_pieces(store, texts):
    tokenizer = store.tokenizer
    drawn = tokenizer.sample_array(texts[0], 1)
    assert tokenizer.decode(drawn) == texts[0] and len(drawn) > len(tokenizer.encode(texts[0]))
    np.testing.assert_array_equal(drawn, tokenizer.sample_array(texts[0], 1))
    assert drawn.tolist() != tokenizer.sample_array(texts[0], 2).tolist()
    odd = "a \u2581 real one"
    assert tokenizer.decode(tokenizer.sample_array(odd, 3)) == odd
    model = Counting()
    bits = noise.segmentation_report(None, model, texts, tokenizer, 5)
    loss = sum(float((b.weights * b.targets).sum()) for b in model.seen)
    assert bits == pytest.approx(loss / np.log(2) / store.valid.bytes)


@pytest.mark.parametrize("tokens", [40, 160, 10**6])
def test_excerpts_are_beginnings_of_documents_spread_over_the_set(store, texts, tokens):
    found = noise.excerpts(store.valid, store.tokenizer, tokens, 16)
    assert all(any(whole.startswith(text) for whole in texts) for text in found)
    assert len(found) == min(len(texts), max(1, tokens // 16))
    made = sum(len(store.tokenizer.encode(text)) for text in found)
    assert made <= tokens + 2 * len(found)
    if tokens == 10**6:
        assert found == texts


def test_a_character_cut_in_two_is_left_out(store):
    ids = store.tokenizer.encode("é")
    split = Split(np.array([2, *ids, 2], np.uint16), np.array([0], np.uint64), 2)
    assert len(ids) > 1 and noise.excerpts(split, store.tokenizer, len(ids) - 1, 16) in ([], [" "])
