"""A text with one label: its target, and the head against a linear classifier."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import Config, TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.objective import WHOLE
from chinchilla_jax.tasks.encode import Example, Item
from chinchilla_jax.tasks.kinds.heads import head_rows, labels
from chinchilla_jax.tasks.kinds.labels import RARE, WITHOUT, label_names
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tasks.pack import filled
from chinchilla_jax.tasks.records import Conversation, Labelled, Tally, Where
from chinchilla_jax.tasks.render import Renderer
from chinchilla_jax.tasks.template import PLAIN
from tests import tiny
from tests.tasks.kinds.oracle import Oracle, sure, task_data
from tests.tasks.made import HERE, encoder, examples

CFG = tiny.MODERN


L = 64


def test_a_label_head_is_a_linear_classifier_of_one_token():
    config = Config(model=CFG, task=TaskConfig(kind="labels", labels=("a", "b", "c")))
    [(name, shape)] = head_rows(config).items()
    assert name == "labels/kernel" and shape == (3, CFG.d_model)
    head = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    params = tiny.spiced(CFG) | {"heads": {"labels": {"kernel": head}}}
    sizes = [4, 9, 6]
    parts = []
    for number, n in enumerate(sizes):
        tokens, targets, weights = np.arange(4, 4 + n, dtype=np.int32), np.zeros(n, np.int32), np.zeros(n, np.float32)
        targets[-1], weights[-1] = number, 1
        parts.append(Item(Where("f", 1, 1), number, (Example(tokens, targets, weights),)))
    batch = filled([parts], L, False)
    objective = labels(config, WHOLE)
    grads, sums, _ = tiny.jit(lambda p: objective.gradients(p, batch, None, 0, ()))(params)
    hidden = np.asarray(tiny.jit(partial(transformer.apply, cfg=CFG))(params, batch))[0][np.cumsum(sizes) - 1]
    logits = hidden @ head.T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert float(sums.loss) == pytest.approx(-np.log(np.diag(p)).sum(), rel=1e-5) and float(sums.weight) == 3
    np.testing.assert_allclose(grads["heads"]["labels"]["kernel"], (p - np.eye(3)).T @ hidden, rtol=1e-4, atol=1e-5)
    assert objective.weighs == "records" and np.abs(np.asarray(grads["embed"]["table"])).max() > 0


def test_a_label_is_the_target_of_the_last_token(tokenizer):
    made = encoder(Renderer(PLAIN, tokenizer), 12, labels=("a", "b"), kind="labels")
    [part] = examples(made, Labelled(HERE, ("wind", "the sea"), ("b",)))
    assert part.tokens.tolist() == [tokenizer.separator, *tokenizer.encode("wind\nthe sea")]
    assert part.weights.sum() == part.weights[-1] == 1 and part.targets[-1] == 1
    [long] = examples(made, Labelled(HERE, ("the sea " * 30,), ("a", "b")))
    assert len(long) == 12 and long.targets[-1] == 0 and len(made.tally.counts) == 2
    with pytest.raises(UserError, match=r"here:1 .*label 'c' is none of"):
        made.items(Labelled(HERE, ("wind",), ("c",)), 0)


TALK = Conversation(HERE, ("wind", "the sea", "old songs"), ("a", "b", "a"), "one")


def test_a_text_of_one_token_has_a_token_before_it(tokenizer):
    """Where a tokenizer puts none there; a model keeps little of its first token."""
    bare = SimpleNamespace(
        start=(), opening=3, separator=tokenizer.separator, encode=lambda text: [7] * len(text.split()), controls={}
    )
    [part] = examples(
        encoder(Renderer(PLAIN, bare), 12, labels=("a", "b"), kind="labels"), Labelled(HERE, ("x",), ("b",))
    )
    assert part.tokens.tolist() == [3, 7] and part.targets[-1] == 1
    theirs = encoder(Renderer(PLAIN, bare), 12, labels=("a", "b"), kind="labels", opening=False)
    assert examples(theirs, Labelled(HERE, ("x",), ("b",)))[0].tokens.tolist() == [7]


def test_every_text_of_a_conversation_has_its_label_behind_those_before_it(tokenizer):
    made = encoder(Renderer(PLAIN, tokenizer), 64, labels=("a", "b"), kind="labels")
    [part] = examples(made, TALK)
    parts = [tokenizer.encode(text) for text in TALK.texts]
    newline, ends = tokenizer.encode("\n"), np.flatnonzero(part.weights)
    assert part.tokens.tolist() == [tokenizer.separator, *parts[0], *newline, *parts[1], *newline, *parts[2]]
    assert part.targets[ends].tolist() == [0, 1, 0] and part.weights.sum() == 3
    assert [part.tokens[end] for end in ends] == [ids[-1] for ids in parts]


def test_a_conversation_that_is_too_long_is_divided(tokenizer):
    """Each text is judged once, and one that is too long by itself is cut from the right."""
    made = encoder(Renderer(PLAIN, tokenizer), 8, labels=("a", "b"), kind="labels")
    long = Conversation(HERE, ("wind", "the sea " * 30, "wind", "wind"), ("a", "b", "b", "a"), "one")
    found = examples(made, long)
    assert all(len(part) <= 8 for part in found) and len(found) > 2
    assert [t for part in found for t in part.targets[part.weights > 0]] == [0, 1, 1, 0]
    assert "divided" in "".join(made.tally.counts)
    with pytest.raises(UserError, match="label 'c' is none of"):
        made.items(Conversation(HERE, ("wind", "wind"), ("a", "c"), "one"), 0)


def test_labels_have_one_order():
    """Also those of the same number, whose order in a set is another in every process."""
    names = [*("0" * n + "1" for n in range(6)), "2", "10", "b", "a"]
    found = label_names([Labelled(HERE, ("t",), (name,)) for name in names])
    assert found == ("000001", "00001", "0001", "001", "01", "1", "2", "10", "a", "b")


def test_texts_of_conversations_are_judged_one_by_one(tokenizer):
    """In their order, however rows are filled; what is said of one text is not said of another."""
    draw = np.random.default_rng(0)
    talks = [
        Conversation(
            HERE,
            tuple(f"wind {n} {i}" for i in range(n % 5 + 1)),
            tuple(draw.choice(["a", "b"], n % 5 + 1)),
            str(n),
            tuple(Where("here", 10 * n + i, 1) for i in range(n % 5 + 1)),
        )
        for n in range(12)
    ]
    data = task_data(tokenizer, "labels", talks, seq_len=48, conversation="talk")
    assert data.task.labels == ("a", "b") and data.kind.when(talks)
    figures, rows = Oracle(data, lambda batch: sure(batch.targets, 2)).judged()
    assert figures["accuracy"] == 1.0 and len(rows) == sum(len(talk.texts) for talk in talks)
    assert [(row["input"], row["reference"]) for row in rows] == [pair for talk in talks for pair in talk.judged]
    assert [row["record"] for row in rows] == [str(place) for talk in talks for place in talk.places]
    balanced = data.balanced(data.first)
    say = {0: 0.0, 1: 0.0}
    for part in (part for item in balanced for part in item.parts):
        for at in np.flatnonzero(part.weights):
            say[int(part.targets[at])] += float(part.weights[at])
    assert say[0] == pytest.approx(say[1], rel=1e-5)


def texts(*labels) -> list[Labelled]:
    return [Labelled(HERE, (f"text {i}",), given) for i, given in enumerate(labels)]


def divided(records, seed=0, **task):
    tally = Tally()
    return KINDS[task.get("kind", "labels")].divide(TaskConfig(**task), records, None, None, seed, tally), tally


@pytest.mark.parametrize("kind", ["labels", "multilabel", "choice"])
def test_a_label_of_one_text_is_never_held_out(kind):
    """Which text is held out is chance, and a label that training lacks is an error."""
    moved = 0
    for seed in range(20):
        (train, valid, _), tally = divided(texts(*[("A",), ("B",)] * 6, ("R",)), seed, kind=kind, valid_fraction=0.3)
        assert valid and ("R",) in [record.labels for record in train] and len(train) + len(valid) == 13
        moved += tally.counts.get(RARE, 0)
    assert moved > 0
    with pytest.raises(UserError, match=r"name another file with --task.valid"):
        divided(texts(("A",), ("B",), ("C",)))
    (_, valid, _), _ = divided(texts(("A",), ("B",), ("C",)), labels=("A", "B", "C"))
    assert len(valid) == 1, "labels that were named need no text to train on"


@pytest.mark.parametrize("kind", ["labels", "multilabel", "choice"])
def test_only_some_labels(kind):
    """Others go, also where a record has one of these beside them; nothing is said where nothing is left out."""
    found, tally = divided(texts(*[("C", "A"), ("A",), ("B",), ("D",)] * 5), kind=kind, only=("A", "B"))
    assert {record.labels for part in found for record in part} == {("A",), ("B",)} and sum(map(len, found)) == 15
    assert sorted(tally.counts.values()) == [5, 5]
    assert not divided(texts(*[("A",), ("B",)] * 5), kind=kind, only=("A", "B"))[1].counts
    with pytest.raises(UserError, match=r"--task.only X: no record to train on has it; found 'A'"):
        divided(texts(("A",)), only=("A", "X"))


def test_a_text_without_a_label_is_one_of_several_labels_and_else_dropped():
    made = texts(*[("A",), ("B",), ()] * 4)
    (train, valid, _), _ = divided(made, kind="multilabel")
    assert len(train) + len(valid) == 12
    (train, valid, _), tally = divided(made)
    assert len(train) + len(valid) == 8 and tally.counts[WITHOUT] == 4
