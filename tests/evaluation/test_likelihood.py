"""Loss of a validation set: by source, every token counted once, and how many batches it may cost."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax.config import Config, TaskConfig, TrainConfig
from chinchilla_jax.data.split import Part, Split
from chinchilla_jax.evaluation.likelihood import Likelihood, affordable, labels
from chinchilla_jax.objectives.build import language
from chinchilla_jax.training import program
from chinchilla_jax.types import Sums
from tests import tiny


def test_a_validation_costs_a_tenth_at_most():
    """Of the steps between two, in forward passes: 100 steps of 8 rows pay for 240 rows, 60 batches of 4."""
    train = TrainConfig(steps=1000, batch_size=8, microbatches=2, eval_every=100)
    assert affordable(train) == 60
    assert affordable(dataclasses.replace(train, eval_every=0)) == 600
    assert affordable(dataclasses.replace(train, eval_every=1, batch_size=2)) == 1
    assert [affordable(dataclasses.replace(train, eval_batches=n)) for n in (0, 7)] == [0, 7]


class Program:
    """In the place of a compiled one: the loss of a token is its target."""

    microbatch = 2
    config = type("config", (), {"train": type("train", (), {"seq_len": 8})})

    def evaluate(self, rows):
        """The sums of a batch."""
        return lambda params, batch: Sums(np.sum(batch.targets * batch.weights), np.sum(batch.weights), {})

    def place(self, make, rows):
        """All rows."""
        return make(slice(None))


@pytest.fixture
def split():
    """Documents of four tokens 5, 5, 5 behind the separator 0, and in the second source 9, 9, 9; 30 and 20 of them."""
    tokens = np.array([0, 5, 5, 5] * 30 + [0, 9, 9, 9] * 20 + [0], np.uint16)
    sources = (Part("x/a", 0, 120, 90), Part("x/b", 120, 200, 60))
    return Split(tokens, np.arange(0, 200, 4).astype(np.uint64), 150, sources)


@pytest.mark.parametrize("limit", [0, 5])
def test_loss_by_source(split, limit):
    likelihood = Likelihood(Program(), split, limit)
    figures = likelihood(None)
    assert likelihood.by_source == pytest.approx({"a": 15 / 4, "b": 27 / 4})
    if not limit:
        assert figures["tokens"] == 200
    assert figures["loss_nats_per_token"] == pytest.approx((0.6 * 15 + 0.4 * 27) / 4)


def test_one_source_is_not_told_apart(split):
    likelihood = Likelihood(Program(), Split(split.tokens, split.starts, split.bytes, split.sources[:1]))
    assert likelihood(None)["tokens"] == 200 and likelihood.by_source == {}


def test_labels_tell_sources_apart():
    assert labels(["p/a.txt", "q/b/"]) == ["a.txt", "b"] and labels(["p/a", "q/a"]) == ["p/a", "q/a"]


def test_a_text_is_read_causally_whatever_the_task_of_the_run_was(split):
    """A run whose prompts were read in both directions has none of them in a store: the loss is a causal run's."""
    train = TrainConfig(batch_size=8, seq_len=8)

    def loss(task):
        made = program.Program(Config(model=tiny.MODERN, train=train, task=task), make=language)
        return Likelihood(made, split)(tiny.spiced(tiny.MODERN))["loss_nats_per_token"]

    assert loss(TaskConfig(kind="chat", source="bidirectional")) == loss(TaskConfig())
