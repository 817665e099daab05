"""Classes of transformers with a head, in both directions."""

import json
from dataclasses import replace

import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import heads

LABELS = ("bad", "good", "so-so")


@pytest.mark.parametrize("name", ["", *heads.HEADS])
def test_a_class_is_a_family_and_a_head(name):
    made = heads.class_of("Qwen3ForCausalLM", name)
    assert heads.split(made) == ("Qwen3", name) and heads.class_of(made, "") == "Qwen3ForCausalLM"
    assert heads.split("LlamaModel") == ("LlamaModel", ""), "which has none"
    assert heads.of_run({f"{name}/kernel": (3, 4), f"{name}/bias": (3,)} if name else {}) == name


@pytest.mark.parametrize(
    "kind, name", [("labels", "labels"), ("multilabel", "labels"), ("tags", "tags"), ("spans", "spans")]
)
def test_a_task_comes_back_from_what_is_said_of_it(kind, name):
    task = TaskConfig(kind=kind, labels=LABELS if kind != "spans" else ())
    told = json.loads(json.dumps(heads.settings(task, name)))
    assert heads.task_of(told, name) == task
    assert heads.task_of({}, "") == TaskConfig() and heads.settings(task, "") == {}


def test_labels_without_names_are_called_as_transformers_calls_them():
    assert heads.task_of({"num_labels": 3}, "tags").labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert heads.task_of({"id2label": {1: "b", 0: "a"}}, "labels").labels == ("a", "b"), "by number, in any order"


@pytest.mark.parametrize("told, message", [
    ({"num_labels": True}, "num_labels"), ({"num_labels": 1}, "'regression' with 1 labels"),
    ({"id2label": {"0": "a", "1": "a"}}, "name of its own"), ({"id2label": {"1": "a", "2": "b"}}, "0, 1, 2"),
    ({"id2label": {"0": 5, "1": "b"}}, "name of its own"), ({"problem_type": "regression"}, "regression"),
])  # fmt: skip
def test_what_is_no_classification_is_refused(told, message):
    with pytest.raises(UserError, match=message):
        heads.task_of(told, "labels")


def test_folders_of_ours_say_how_their_inputs_are_read():
    """And those of others give a model what their tokenizer makes of a text."""
    task = TaskConfig(kind="labels", labels=LABELS)
    assert heads.read_as(task, {}) == replace(task, opening=False)
    assert heads.read_as(task, {"opening": True, "source": "twice"}) == replace(task, source="twice")


def test_inputs_read_in_both_directions_have_no_class():
    heads.causal("twice")
    with pytest.raises(UserError, match="the run directory itself is the form to pass on"):
        heads.causal("bidirectional")
