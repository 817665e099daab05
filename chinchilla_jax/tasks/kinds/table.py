"""The table of the kinds of task. A new one is a file beside this one, its row here, and its name in `config.task`."""

from collections.abc import Sequence

from chinchilla_jax.config import Config, require
from chinchilla_jax.objectives.objective import Binding, Objective
from chinchilla_jax.tasks.kinds import (
    answer,
    chat,
    choice,
    items,
    labels,
    multilabel,
    preference,
    spans,
    summary,
    tags,
    text,
    translation,
)
from chinchilla_jax.tasks.kinds.kind import Kind
from chinchilla_jax.tasks.records import Record

# Of several that read a kind of format, "auto" takes the first that says yes to the records.
ROWS = (text, chat, multilabel, labels, preference, tags, spans, items, translation, summary, answer, choice)
KINDS: dict[str, Kind] = {row.KIND.name: row.KIND for row in ROWS}


def kind_of(name: str) -> Kind:
    """The row of a kind; that of text for a run that was tuned on nothing ("auto")."""
    return KINDS.get(name, text.KIND)


def settled(reads: str, records: Sequence[Record], where: str) -> Kind:
    """What "auto" takes for records of a kind of format. Raises `UserError` where nothing is trained on them."""
    found = next((kind for kind in KINDS.values() if reads in kind.reads and kind.when(records)), None)
    require(found is not None, f"{where}: records of the kind {reads}; --task.kind can be {', '.join(KINDS)}")
    return found


def of_task(config: Config, binding: Binding) -> Objective:
    """What the config's task minimises."""
    return kind_of(config.task.kind).objective(config, binding)


def heads(config: Config) -> dict[str, tuple[int, ...]]:
    """Shapes of the leaves that the config's task adds to the model, by `NAME/leaf`."""
    return kind_of(config.task.kind).heads(config)
