"""What a kind of task says of itself."""

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds.table import KINDS


def test_metrics_are_named_and_directed():
    assert all(kind.metric in kind.figures and "loss" in kind.figures for kind in KINDS.values())
    labels, chat = KINDS["labels"], KINDS["chat"]
    assert labels.metric_of("auto") == "valid_accuracy" and chat.metric_of("valid_exact") == "valid_exact"
    assert labels.lower_is_better("valid_loss") and not labels.lower_is_better("valid_accuracy")
    with pytest.raises(UserError, match="did you mean accuracy"):
        labels.metric_of("acuracy")
