"""Records as they are trained, for a reader: control pieces by name, what has a loss between [[ and ]]."""

from chinchilla_jax.tasks.data import TaskData
from chinchilla_jax.tasks.encode import Example


def shown(data: TaskData, count: int) -> list[str]:
    """The first records as they are trained: `[[` and `]]` stand round what has a loss."""
    lines = []
    for item in data.first[:count]:
        lines.append(f"--- {item.where}")
        for part in item.parts:
            lines.append(marked(data, part))
    return lines


def marked(data: TaskData, part: Example) -> str:
    """A document with its trained tokens in brackets, control pieces by name."""
    names, own = {i: name for name, i in data.tokenizer.controls.items()}, slice(len(data.soft), None)
    if data.kind.shown:
        return data.kind.shown(data, spelled(data, names, part.tokens[own].tolist()), part)
    ids = [int(part.tokens[own][0]), *part.targets[own].tolist()]
    trained = [False, *(part.weights[own] > 0).tolist()]
    text, start = "", 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or trained[end] != trained[start]:
            part = spelled(data, names, ids[start:end])
            text += f"[[{part}]]" if trained[start] else part
            start = end
    return text


def spelled(data: TaskData, names: dict[int, str], ids: list[int]) -> str:
    """Ids as text; a control piece, which stands for none, by its name."""
    text, run = "", []
    for i in [*ids, None]:
        if i is not None and i not in names:
            run.append(i)
            continue
        text += data.tokenizer.decode(run) + (names[i] if i is not None else "")
        run = []
    return text
