"""Settings that a tuning run gets where nobody gave them."""

import dataclasses
from types import SimpleNamespace

import pytest

from chinchilla_jax.config import Config, TaskConfig, replace
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tuning import start


def data(lengths=(10,), held=(), rows=400, added=(), size=320, documents=1, turns=False):
    """Examples of these lengths, packed into so many rows."""
    passing = lambda task, passes: replace(task, {"epochs": passes})  # noqa: E731
    return SimpleNamespace(
        first=[range(n) for n in lengths], valid=held, encoded=lambda records: [range(n) for n in records], seq_len=64,
        packed=SimpleNamespace(rows_of=lambda epoch: rows), steps=lambda batch: 3 * rows // batch, added=added,
        tokenizer=SimpleNamespace(size=size, special=(0, 1, 5)),
        kind=SimpleNamespace(passing=passing, documents=documents, keeps_template=turns),
    )  # fmt: skip


@pytest.mark.parametrize("lengths, held, window", [
    ((10, 64), (), 64), ((10, 65), (), 128), ((10,), (70, 129), 192), ((1000,), (), 256), ((256,), (), 256),
])  # fmt: skip
def test_a_window_holds_the_longest_example_as_far_as_the_base_can_read(lengths, held, window):
    asked = []

    def opened(task, seq_len):
        asked.append(seq_len)
        return data(lengths, held)

    assert start.needed(TaskConfig(), opened, 256) == window and asked == [256]


def test_each_answer_of_a_pair_may_be_as_long_as_the_base_can_read():
    asked = []

    def opened(task, seq_len):
        asked.append(seq_len)
        return data((min(400, seq_len), 90), documents=2)

    assert start.needed(TaskConfig(), opened, 256) == 448 and asked == [256, 512]
    assert start.needed(TaskConfig(), opened, 128) == 256, "and no longer"


def test_new_pieces_get_rows_that_train():
    config = replace(Config(), {"model.vocab_size": 320, "tune.method": "lora"})
    found = start.fitted(config, data(size=322, added=(320, 321)))
    assert (found.model.vocab_size, found.tune.rows, found.train.seq_len) == (322, (320, 321), 64)
    assert found.adversarial.special == (0, 1, 5), "which the tokenizer calls control pieces"
    whole = replace(config, {"tune.method": "full", "adversarial.special": (7,)})
    found = start.fitted(whole, data(size=300, added=(320,)))
    assert (found.model.vocab_size, found.tune.rows, found.adversarial.special) == (320, (), (7,))


@pytest.mark.parametrize(
    "turns, given, expected", [(True, "auto", "trained"), (True, "all", "all"), (False, "auto", "auto")]
)
def test_logits_are_those_of_answers_where_turns_are_written(turns, given, expected):
    config = replace(Config(), {"model.vocab_size": 320, "objective.positions": given})
    assert start.fitted(config, data(size=320, turns=turns)).objective.positions == expected


def test_steps_follow_from_the_examples_and_rates_from_the_method():
    """Eight devices share a batch."""
    config = replace(Config(), {"tune.method": "ia3", "tune.base": "base", "train.batch_size": 30})
    found = start.timed(config, data(rows=400), set())
    train = found.train
    assert (train.batch_size, train.steps, train.eval_every, train.log_every) == (24, 50, 17, 1)
    assert (found.checkpoint.every, found.checkpoint.keep, found.optimizer.warmup_steps) == (17, 1, 2)
    assert found.optimizer.weight_decay == 0.0 and found.optimizer.peak_lr == 5e-3
    assert found.task.epochs == 24 * 50 / 400, "passes over the examples, as they come out"
    few = start.timed(config, data(rows=16), set())
    assert few.train.batch_size == 8, "an eighth of the rows at most, a row a device at least"


def test_what_the_command_line_says_stays():
    config = replace(Config(), {
        "tune.method": "lora", "tune.base": "base", "train.batch_size": 16, "train.steps": 300, "train.eval_every": 0,
        "optimizer.peak_lr": 0.5, "optimizer.warmup_steps": 7,
    })  # fmt: skip
    given = {"train.batch_size", "train.steps", "train.eval_every", "optimizer.peak_lr", "optimizer.warmup_steps"}
    found = start.timed(config, data(), given)
    assert (found.train.batch_size, found.train.steps, found.train.eval_every) == (16, 300, 0)
    assert (found.optimizer.peak_lr, found.optimizer.warmup_steps) == (0.5, 7)
    assert found.checkpoint.every == 300 and found.train.log_every == 10, "without validations at the end alone"
    scratch = start.timed(replace(config, {"tune.base": "", "tune.method": "off"}), data(), given)
    assert scratch.optimizer.weight_decay == Config().optimizer.weight_decay


def test_the_table_says_what_trains():
    found = {"method": "lora", "trained_parameters": 1000, "parameters": 50_000, "steps": 1200, "rows": 8,
             "seq_len": 64, "memory_bytes": 2.5e9, "optimizer_bytes": 3e6, "seconds_at_most": None}  # fmt: skip
    lines = start.table(found).splitlines()
    assert lines == [
        "lora: 1,000 of 50,000 parameters train (2.00%)", "1,200 steps of 8 rows of 64 tokens",
        "2.50 GB a device, 3.0 MB of it the optimizer's",
    ]  # fmt: skip
    assert start.table({**found, "seconds_at_most": 120.0}).splitlines()[3].startswith("expected time: ")


def test_an_attack_that_the_kind_has_no_measure_for_is_refused_before_anything_is_written():
    told = {"task.kind": "spans", "model.vocab_size": 64}
    encoded = []
    examples = SimpleNamespace(kind=KINDS["spans"], encode_all=lambda: encoded.append(True))
    assert start.checked(replace(Config(), told), examples) is examples and encoded == [True]
    with pytest.raises(UserError, match=r"--adversarial.method r3f compares predictions"):
        start.checked(replace(Config(), {**told, "adversarial.method": "r3f"}), examples)


def test_pairs_without_a_run_to_start_from_are_refused():
    with pytest.raises(UserError, match=r"--task.kind preference holds a model .* name that run with --from DIR"):
        start.checked(Config(), SimpleNamespace(kind=KINDS["preference"]))


def test_without_examples_or_with_windows_it_says_what_to_change(tmp_path):
    task = TaskConfig(test=("test.jsonl",))
    config = dataclasses.replace(Config(), task=task)
    with pytest.raises(UserError, match=r"name the examples with --task\.train FILE"):
        start.start(config, tmp_path / "run", set()).__enter__()
    config = replace(config, {"task.train": ("train.jsonl",), "train.shift_windows": True})
    with pytest.raises(UserError, match=r"--train\.shift-windows is nothing that finetune looks at"):
        start.start(config, tmp_path / "run", set()).__enter__()
    assert not list(tmp_path.iterdir())
