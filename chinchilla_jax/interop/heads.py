"""Heads in the place of the vocabulary as transformers and peft have them: one table, read in both directions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from chinchilla_jax.config import TaskConfig, require

CAUSAL = "ForCausalLM"
SEVERAL = "multi_label_classification"  # transformers' problem_type of labels each decided by itself


class Head(NamedTuple):
    """The ending of its classes in transformers, its module there, peft's type of task and what peft saves with it.

    `pipeline` and `fed` are for the model card: Hugging Face's name of the task, and what the model was shown.
    """

    ending: str
    module: str
    task_type: str
    saved: tuple[str, ...]
    pipeline: str
    fed: str


HEADS = {  # by our name of the head
    "labels": Head(
        "ForSequenceClassification", "score", "SEQ_CLS", ("classifier", "score"), "text-classification",
        "Its input is the text; two texts have a newline between them.",
    ),
    "tags": Head(
        "ForTokenClassification", "score", "TOKEN_CLS", ("classifier", "score"), "token-classification",
        "Its input begins with the bos token; every word is tokenized by itself, with the blank before it, and its "
        "first token has its tag.",
    ),
    "spans": Head(
        "ForQuestionAnswering", "qa_outputs", "QUESTION_ANS", ("qa_outputs",), "question-answering",
        "Its input is the bos token, the question, a newline, the context and a newline; the last token stands for no "
        "answer.",
    ),
}  # fmt: skip
ENDINGS = {CAUSAL: ""} | {head.ending: name for name, head in HEADS.items()}


def split(architecture: str) -> tuple[str, str]:
    """A class's family, such as Llama, and our name of its head; empty for a language model's."""
    found = next(((end, name) for end, name in ENDINGS.items() if architecture.endswith(end)), ("", ""))
    return architecture.removesuffix(found[0]), found[1]


def class_of(architecture: str, name: str) -> str:
    """The class with the head `name` of the same family."""
    return split(architecture)[0] + (HEADS[name].ending if name else CAUSAL)


def of_run(shapes: Mapping[str, Any]) -> str:
    """Our name of the head whose leaves are NAME/leaf; empty where there is none."""
    return next(iter(shapes), "").partition("/")[0]


def causal(source: str) -> None:
    """Raise a `UserError` for a run whose inputs were read in both directions."""
    require(
        source != "bidirectional",
        "this run reads its inputs in both directions (--task.source bidirectional), and others would read them from "
        "left to right: the run directory itself is the form to pass on",
    )


def task_of(told: Mapping[str, Any], name: str) -> TaskConfig:
    """The task of a config.json whose class has the head `name`."""
    if name in ("", "spans"):
        return TaskConfig(kind=name or "auto")
    names, count = told.get("id2label") or {}, told.get("num_labels") or 2
    require(type(count) is int and 0 < count < 2**20, f"config.json: num_labels is {count!r}")
    names = names or {i: f"LABEL_{i}" for i in range(count)}
    ok = isinstance(names, Mapping) and {*map(str, names)} == {*map(str, range(len(names)))}
    labels = [{str(i): name for i, name in names.items()}[str(i)] for i in range(len(names))] if ok else []
    require(
        ok and all(isinstance(label, str) for label in labels) and len({*labels}) == len(labels),
        "config.json: id2label gives no name of its own to each of 0, 1, 2 ...",
    )
    kind = told.get("problem_type")
    require(
        kind in (None, "single_label_classification", SEVERAL) and (name != "labels" or len(labels) > 1),
        f"config.json: problem_type {kind or 'regression'!r} with {len(labels)} labels is not supported",
    )
    require(told.get("token_classification_bias", True) is True, "token_classification_bias false is not supported")
    return TaskConfig(kind="multilabel" if name == "labels" and kind == SEVERAL else name, labels=tuple(labels))


def read_as(task: TaskConfig, told: Mapping[str, Any]) -> TaskConfig:
    """How inputs are read, by the task.json of a folder of ours; those of others are what their tokenizer makes."""
    source = "twice" if told.get("source") == "twice" else "causal"
    return replace(task, source=source, opening=bool(told.get("opening")))


def settings(task: TaskConfig, name: str) -> dict[str, Any]:
    """What config.json says of a head."""
    if name in ("", "spans"):
        return {}
    kind = {"problem_type": SEVERAL if task.kind == "multilabel" else "single_label_classification"}
    return {
        "id2label": {str(i): label for i, label in enumerate(task.labels)},
        "label2id": {label: i for i, label in enumerate(task.labels)},
        **(kind if name == "labels" else {}),
    }
