"""What a kind of task says of itself."""

import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds.kind import FEW
from chinchilla_jax.tasks.kinds.table import KINDS


def test_metrics_are_named_and_directed():
    assert all(kind.metric in kind.figures and "loss" in kind.figures for kind in KINDS.values())
    labels, chat = KINDS["labels"], KINDS["chat"]
    assert labels.metric_of("auto") == "valid_accuracy" and chat.metric_of("valid_exact") == "valid_exact"
    assert labels.lower_is_better("valid_loss") and not labels.lower_is_better("valid_accuracy")
    with pytest.raises(UserError, match="did you mean accuracy"):
        labels.metric_of("acuracy")


@pytest.mark.parametrize(
    "kind, setting",
    [
        ("tags", {"only": ("A", "B")}), ("answer", {"style": "cmrc"}), ("tags", {"style": "cmrc"}),
        ("tags", {"swap": 0.1}), ("spans", {"deletion": 0.1}), ("items", {"replacement": 0.1}),
        ("spans", {"sampling": 0.1}), ("tags", {"beam": 4}), ("tags", {"stride": 8}), ("labels", {"split": "time"}),
        ("multilabel", {"balance": True}), ("labels", {"generate": 0}),
    ],
)  # fmt: skip
def test_a_setting_that_a_kind_does_not_follow_is_refused(kind, setting):
    [name] = setting
    with pytest.raises(UserError, match=rf"--task.{name} .* is nothing that --task.kind {kind} looks at; leave it out"):
        KINDS[kind].check_few(TaskConfig(**setting))
    KINDS[kind].check_few(TaskConfig())


def test_a_figure_of_answers_needs_answers():
    KINDS["chat"].check_few(TaskConfig(generate=0))
    with pytest.raises(UserError, match=r"--task.generate 0 leaves no answer to count valid_exact on"):
        KINDS["chat"].check_few(TaskConfig(generate=0, metric="exact"))
    KINDS["choice"].check_few(TaskConfig(generate=0, metric="loss"))
    with pytest.raises(UserError, match="valid_accuracy"):
        KINDS["choice"].check_few(TaskConfig(generate=0))


def test_every_such_setting_is_followed_by_a_kind():
    followed = {name for kind in KINDS.values() for name in kind.follows}
    assert followed == set(FEW) and len(FEW) == len(followed)
    KINDS["choice"].check_few(TaskConfig(only=("A", "B"), choose="mean"))
