"""How turns are written: a template as data, and the same thing as a `chat_template.jinja` for others.

A turn is head, content, tail and gap. Of an assistant's turn content and tail are trained; the head before it is what a
server writes to ask for an answer, and the gap behind it is the next head's business. Marks are control pieces: their
ids come from the template alone, and a user who types one gets ordinary pieces.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chinchilla_jax.config import closest, require
from chinchilla_jax.errors import UserError

ROLES = ("system", "user", "assistant")
JINJA, MARKS = "chat_template.jinja", re.compile(r"<\|[^|<>]+\|>")


@dataclass(frozen=True)
class Template:
    """`heads` and `tails` by role; `joint` is between the two parts of a turn, `system` a first turn where none is.

    Without `several` a dialogue has one exchange, since nothing but the end of the document ends an answer.
    """

    name: str
    heads: dict[str, str] = field(default_factory=lambda: dict.fromkeys(ROLES, ""))
    tails: dict[str, str] = field(default_factory=lambda: dict.fromkeys(ROLES, ""))
    gap: str = ""
    joint: str = "\n"
    system: str = ""
    several: bool = False

    def __post_init__(self):
        for name in ("heads", "tails"):
            found = getattr(self, name)
            require(
                isinstance(found, dict) and set(found) == set(ROLES),
                f"template {self.name}: {name} needs a text for each of {', '.join(ROLES)}",
            )
        end = self.tails["assistant"]
        require(
            not self.several or bool(MARKS.match(end)),
            f"template {self.name}: several turns need a control piece such as <|im_end|> after an answer, not {end!r}",
        )

    @property
    def marks(self) -> tuple[str, ...]:
        """The control pieces that the template writes."""
        texts = [*self.heads.values(), *self.tails.values(), self.gap]
        return tuple(dict.fromkeys(mark for text in texts for mark in MARKS.findall(text)))

    @property
    def sha256(self) -> str:
        """A hash of everything that the template is."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def pieces(self, text: str) -> list[tuple[bool, str]]:
        """A part of the template as (is a mark, text), in order; never to be used on a user's text."""
        found = [(bool(MARKS.fullmatch(part)), part) for part in re.split(f"({MARKS.pattern})", text)]
        return [(mark, part) for mark, part in found if part]


CHATML = Template(
    "chatml",
    heads={role: f"<|im_start|>{role}\n" for role in ROLES},
    tails=dict.fromkeys(ROLES, "<|im_end|>"),
    gap="\n",
    several=True,
)
ALPACA = Template(
    "alpaca",
    heads={"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n"},
    tails={"system": "\n\n", "user": "\n\n", "assistant": ""},
    joint="\n\n### Input:\n",
)
PLAIN = Template("plain", tails={"system": "\n", "user": "", "assistant": ""})
LINES = Template("lines", tails={"system": "\n", "user": "\n", "assistant": ""})  # the target on a line of its own
TEMPLATES = {template.name: template for template in (CHATML, ALPACA, PLAIN, LINES)}


def named(name: str) -> Template:
    """A template of the table, or that of a .json file."""
    if not name.endswith(".json"):
        require(
            name in TEMPLATES,
            f"--task.template {name}: known are {', '.join(TEMPLATES)}, or a .json file{closest(name, TEMPLATES)}",
        )
        return TEMPLATES[name]
    try:
        return from_dict(json.loads(Path(name).read_text(encoding="utf-8")), name)
    except (OSError, ValueError) as error:
        raise UserError(f"--task.template {name}: cannot be read ({error})") from error


def from_dict(values: Any, where: str) -> Template:
    """The template that a table of settings holds."""
    known = {item.name for item in dataclasses.fields(Template)}
    require(isinstance(values, dict), f"{where}: a template is a table of {', '.join(sorted(known))}")
    for name in values:
        require(name in known, f"{where}: unknown setting {name} of a template{closest(name, known)}")
    return Template(**{"name": Path(where).stem, **values})


def jinja(template: Template, begins: bool) -> str:
    """The template for `apply_chat_template`; `begins` puts the bos token first, as `Tokenizer.start` has it."""

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"

    def joined(*parts: str) -> str:
        return "{{ " + " + ".join(part for part in parts if part != "''") + " }}" if set(parts) != {"''"} else ""

    def turn(role: str, content: str) -> str:
        head, tail, gap = quoted(template.heads[role]), quoted(template.tails[role]), quoted(template.gap)
        if role == "assistant":
            trained = "{% generation %}" + joined(content, tail) + "{% endgeneration %}"
            return joined(head) + trained + joined(gap)
        return joined(head, content, tail, gap)

    first = "{{ bos_token }}" if begins else ""
    if template.system:
        said = turn("system", quoted(template.system))
        first += "{% if messages[0]['role'] != 'system' %}" + said + "{% endif %}"
    cases = [
        f"{{% if message['role'] == '{ROLES[0]}' %}}",
        *(f"{{% elif message['role'] == '{r}' %}}" for r in ROLES[1:]),
    ]
    body = "".join(case + turn(role, "message['content']") for case, role in zip(cases, ROLES))
    asked = "{% if add_generation_prompt %}" + joined(quoted(template.heads["assistant"])) + "{% endif %}"
    return f"{first}{{% for message in messages %}}{body}{{% endif %}}{{% endfor %}}{asked}"


def from_jinja(text: str) -> Template | None:
    """The template that a model's own jinja file amounts to, where it is ChatML or written by `jinja`; with its default
    system turn."""
    if own := _written(text.strip()):
        return own
    flat = re.sub(r"\s|\\n", "", text).replace('"', "'").replace("message.role", "message['role']")
    flat = flat.replace("message.content", "message['content']").replace("+''+", "+")
    written = "'<|im_start|>'+message['role']+message['content']+'<|im_end|>"
    if written not in flat:
        return None
    system = re.search(r"<\|im_start\|>system(?:\\n|\s)+(.*?)<\|im_end\|>", text, re.DOTALL)
    said = system.group(1).replace("\\n", "\n") if system and "{" not in system.group(1) else ""
    return dataclasses.replace(CHATML, system=said)


def _written(text: str) -> Template | None:
    """The named template whose file `jinja` writes like this."""
    first = re.search(r"!= 'system' %\}\{\{ (.*?) \}\}\{% endif %\}", text, re.DOTALL)
    parts = re.findall(r"'((?:[^'\\]|\\.)*)'", first.group(1)) if first else []
    turn = re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match.group(1), match.group(1)), "".join(parts))
    for one in TEMPLATES.values():
        said = turn.removeprefix(one.heads["system"]).removesuffix(one.tails["system"] + one.gap)
        made = dataclasses.replace(one, system=said)
        if text in (jinja(made, True), jinja(made, False)):
            return made
    return None
