"""Templates as data and as Jinja."""

import dataclasses
import importlib.util
import json

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.records import Turn
from chinchilla_jax.tasks.template import ALPACA, CHATML, TEMPLATES, Template, from_dict, from_jinja, jinja, named
from tests.tasks.made import dialogue


def test_templates_as_data_and_as_jinja(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"heads": CHATML.heads, "tails": CHATML.tails, "gap": "\n", "several": True}))
    assert named(str(path)) == Template("mine", CHATML.heads, CHATML.tails, "\n", several=True)
    for wrong, message in (({"head": {}}, "did you mean heads"), ({"several": True}, "control piece")):
        with pytest.raises(UserError, match=message):
            from_dict(wrong, "mine.json")
    with pytest.raises(UserError, match="did you mean chatml"):
        named("chatlm")
    smol = (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are SmolLM<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
        "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert from_jinja(smol).system == "You are SmolLM" and from_jinja("{{ messages }}") is None
    assert from_jinja(smol).sha256 != CHATML.sha256


@pytest.mark.skipif(importlib.util.find_spec("jinja2") is None, reason="jinja2 is not installed")
@pytest.mark.parametrize(
    "template", [CHATML, Template("s", CHATML.heads, CHATML.tails, "\n", "\n", "Be 'brief'.", True), ALPACA]
)
def test_jinja_says_the_same(template, tokenizer):
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        """The block that transformers adds; `|` marks its ends here."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("marked"), [], [], body).set_lineno(line)

        def marked(self, caller):
            return f"\x01{caller()}\x02"

    record = dialogue(1 if template is ALPACA else 3)
    messages = [{"role": turn.role, "content": turn.content} for turn in record.turns]
    text = (
        jinja2.Environment(extensions=[Generation])
        .from_string(jinja(template, True))
        .render(messages=messages, bos_token="\x03", add_generation_prompt=True)
    )
    spelled, trained = "\x03", []
    turns = ([Turn("system", template.system)] if template.system else []) + list(record.turns)
    for turn in turns:
        body = turn.content + template.tails[turn.role]
        trained += [body] if turn.role == "assistant" else []
        inner = f"\x01{body}\x02" if turn.role == "assistant" else body
        spelled += template.heads[turn.role] + inner + template.gap
    assert text == spelled + template.heads["assistant"] and trained


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("system", ["", "Be 'brief'.", "two\nlines, a \\n and a back\\slash"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_file_that_is_written_here_is_understood_again(template, system, begins):
    """As a tuned run is exported and imported; but for a template that another one writes alike."""
    whole = dataclasses.replace(template, system=system)
    found = from_jinja(jinja(whole, begins) + "\n")
    assert jinja(found, begins) == jinja(whole, begins) and found.system == system
