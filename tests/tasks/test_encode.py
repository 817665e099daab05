"""Templates, masks, cutting and packing: ids from parts, every answer trained once, neighbours unseen."""

import numpy as np
import pytest

from chinchilla_jax.tasks.encode import CUT, NO_ROOM
from chinchilla_jax.tasks.records import Dialogue, Preference, Turn
from tests.tasks.made import HERE, SHARED, dialogue, encoder, examples, trained_texts


def test_what_is_trained_is_answers_and_their_ends(chat, tokenizer):
    record = dialogue(3, system=True)
    [part] = examples(encoder(chat), record)
    end = tokenizer.controls["<|im_end|>"]
    answers = [[*tokenizer.encode(t.content), end] for t in record.turns if t.role == "assistant"]
    assert trained_texts(tokenizer, part) == [*answers, [tokenizer.separator]]
    assert (part.tokens[1:] == part.targets[:-1]).all() and (part.tokens == tokenizer.separator).sum() == 1
    [last] = examples(encoder(chat, turns="last"), record)
    assert trained_texts(tokenizer, last) == [answers[-1], [tokenizer.separator]]


def test_a_message_of_weight_0_is_shown_and_not_trained(chat, tokenizer):
    record = dialogue(2)
    turns = (*record.turns[:1], Turn("assistant", record.turns[1].content, trained=False), *record.turns[2:])
    [part] = examples(encoder(chat), Dialogue(HERE, turns, messages=True))
    assert len(trained_texts(tokenizer, part)) == 2
    assert (part.tokens == examples(encoder(chat), record)[0].tokens).all()


# --- Cutting


def test_the_source_is_cut_and_never_the_answer(chat, tokenizer):
    turns = (Turn("user", "the sea " * 50), Turn("assistant", "old songs"))
    made = encoder(chat, 40)
    [part] = examples(made, Dialogue(HERE, turns))
    end = tokenizer.controls["<|im_end|>"]
    assert trained_texts(tokenizer, part)[0] == [*tokenizer.encode("old songs"), end] and len(part) == 40
    assert made.tally.counts == {CUT: 1}
    head = chat.turn(Turn("user", "")).ids[:-2]
    assert part.tokens[1 : 1 + len(head)].tolist() == head, "the head of the turn stays"
    none = encoder(chat, 40)
    assert not examples(none, Dialogue(HERE, (turns[0], Turn("assistant", "old songs " * 30))))
    assert none.tally.counts[NO_ROOM] == 1


@pytest.mark.parametrize("limit", [72, 90, 120, 160])
@pytest.mark.parametrize("turns", ["all", "last"])
def test_long_dialogues_train_every_answer_once(chat, tokenizer, limit, turns):
    record = dialogue(9, seed=limit, system=True)
    parts = examples(encoder(chat, limit, turns=turns), record)
    end = tokenizer.controls["<|im_end|>"]
    answers = [[*tokenizer.encode(t.content), end] for t in record.turns if t.role == "assistant"]
    found = [text for part in parts for text in trained_texts(tokenizer, part)]
    due = answers if turns == "all" else answers[-1:]
    assert found == [*due, [tokenizer.separator]]
    system = chat.turn(record.turns[0]).ids
    for part in parts:
        assert len(part) <= limit and part.tokens[1 : 1 + len(system)].tolist() == system


def test_preference_pairs_share_a_prompt_and_keep_both_answers(chat, tokenizer):
    good, bad = (Turn("assistant", "wind " * 3),), (Turn("assistant", "stone " * 40),)
    pair = Preference(HERE, (Turn("user", "the sea " * 40),), good, bad)
    for limit in (1000, 120):
        [item] = encoder(chat, limit, kind="preference").items(pair, 0)
        chosen, rejected = item.parts
        assert len(item) <= limit and all(part.weights.sum() >= 3 for part in item.parts)
        shared = int(np.flatnonzero(chosen.weights)[0]) + 1
        assert (chosen.tokens[:shared] == rejected.tokens[:shared]).all()
        assert chosen.targets[-1] == tokenizer.separator and chosen.weights[-1] == 1


def test_blocks_number_what_is_not_trained(chat):
    [part] = examples(encoder(chat, source="bidirectional"), dialogue(2))
    runs = [int(n) for n, last in zip(part.blocks, [-1, *part.blocks[:-1]]) if n != last]
    assert runs == [1, 0, 2, 0, 3]
    inside = (part.blocks[:-1] > 0) & (part.blocks[:-1] == part.blocks[1:])
    assert not part.weights[:-1][inside].any(), "no target that its token can see"


# --- Templates


# --- Packing


# --- Augmentation


# --- All of it


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/tasks here")
def test_real_dialogues(chat, tokenizer):
    """Sums of weights are the tokens of answers and their ends, and the separator comes once."""
    from chinchilla_jax.tasks.read import read

    for name in ("sgd", "crosswoz"):
        for record in read([SHARED / f"dialogue/{name}/test.jsonl.gz"]).records[:50]:
            [part] = examples(encoder(chat, 10**6), record)
            answers = [t for t in record.turns if t.role == "assistant"]
            last = record.turns[-1].role == "assistant"
            assert part.weights.sum() == sum(len(tokenizer.encode(t.content)) + 1 for t in answers) + last
            assert (part.tokens == tokenizer.separator).sum() == 1
