"""Sets of labels: as bits in targets and back, and a loss that decides each by itself."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds import multilabel
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tasks.records import Labelled
from chinchilla_jax.tasks.render import Renderer
from chinchilla_jax.tasks.template import PLAIN
from tests import tiny
from tests.tasks.made import HERE

NAMES = tuple(f"n{n}" for n in range(64))  # three words of 31 bits


def encoder(tokenizer) -> Encoder:
    return Encoder(KINDS["multilabel"].encode, Renderer(PLAIN, tokenizer), TaskConfig(), 40, NAMES)


@pytest.mark.parametrize("there", [(), (0,), (30, 31, 61, 62, 63), tuple(range(64))])
def test_labels_go_into_bits_and_come_back(tokenizer, there):
    """Also where the text has fewer tokens than the labels need."""
    for text in ("wind", "old songs over cold stone"):
        record = Labelled(HERE, (text,), tuple(NAMES[i] for i in there))
        [item] = encoder(tokenizer).items(record, 0)
        [part] = item.parts
        assert part.weights.sum() == part.weights[-1] == 1 and len(part) >= multilabel.words_of(64) == 3
        found = np.asarray(multilabel.sets(part.targets[None], 64))[0, -1]
        assert np.flatnonzero(found).tolist() == list(there)
        said = multilabel.shown(SimpleNamespace(task=SimpleNamespace(labels=NAMES)), text, part)
        assert said == f"{text} -> [[{', '.join(NAMES[i] for i in there)}]]"


def test_an_unknown_label_is_named(tokenizer):
    with pytest.raises(UserError, match=r"here:1 .*label 'x' is none of the training set's .*; add records"):
        encoder(tokenizer).items(Labelled(HERE, ("wind",), ("n1", "x")), 0)


def test_the_loss_is_the_sum_of_single_decisions():
    """In float64, with logits of both signs that saturate; the weight of other tokens does not count."""
    draw = np.random.default_rng(0)
    batch = tiny.packed([[6]], 6, 9)
    targets, weights = np.zeros((1, 6), np.int32), np.zeros((1, 6), np.float32)
    targets[0, 4:], weights[0, 5] = [0b10, 0b101], 1  # labels 0, 2 and 32
    batch = dataclasses.replace(batch, targets=targets, weights=weights)
    hidden, table = draw.standard_normal((1, 6, 5)), 20 * draw.standard_normal((40, 5))
    loss, _ = multilabel.binary_head(np.float32(hidden), np.float32(table), batch)
    there = np.isin(np.arange(40), [0, 2, 32])
    z = table @ hidden[0, 5]
    expected = np.logaddexp(0, np.where(there, -z, z)).sum()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name, tuned, threshold", [
    ("valid", {}, 0.2), ("test", {}, 0.5), ("test", {"threshold": 0.3}, 0.3),
])  # fmt: skip
def test_validation_alone_sets_the_threshold(monkeypatch, name, tuned, threshold):
    """And 0.5 counts where it has set none."""
    monkeypatch.setattr(multilabel, "compiled_head", lambda examination, of: None)
    monkeypatch.setattr(multilabel.classes, "threshold", lambda there, p: 0.2)
    found = [(SimpleNamespace(record=0), 0, np.array([0.4, 0.1]))]
    monkeypatch.setattr(multilabel, "at_last", lambda *given: found)
    data = SimpleNamespace(task=SimpleNamespace(labels=("a", "b")))
    records = [Labelled(HERE, ("t",), ("a",))]
    figures, _ = multilabel.Sets(SimpleNamespace(name=name, tuned=tuned, data=data, records=records))(None, None)
    assert figures["threshold"] == threshold


def test_auto_takes_it_where_a_record_has_not_just_one_label():
    one, two, none = (Labelled(HERE, ("t",), labels) for labels in (("a",), ("a", "b"), ()))
    assert not multilabel.several([one, one]) and multilabel.several([one, two]) and multilabel.several([none])
