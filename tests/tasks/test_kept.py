"""The template of a run: from task.json, from a Jinja file beside it, or none; what is not understood is named."""

import dataclasses
import json

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kept import FILE, own_template, read_task
from chinchilla_jax.tasks.template import ALPACA, CHATML, JINJA, jinja


def test_a_run_without_either_has_none(tmp_path):
    assert own_template(tmp_path) is None and read_task(tmp_path) == {}


def test_what_it_was_tuned_with_stands_before_what_it_was_imported_with(tmp_path):
    (tmp_path / JINJA).write_text(jinja(CHATML, True))
    imported = own_template(tmp_path)
    assert (imported.heads, imported.tails) == (CHATML.heads, CHATML.tails)
    told = {"kind": "chat", "template": dataclasses.asdict(ALPACA)}
    (tmp_path / FILE).write_text(json.dumps(told))
    assert own_template(tmp_path) == ALPACA
    (tmp_path / FILE).write_text(json.dumps(told | {"kind": "labels"}))  # its texts are turns of nothing
    assert own_template(tmp_path) == imported


def test_what_is_not_understood_is_one_line(tmp_path):
    (tmp_path / JINJA).write_text("{{ messages }}")
    with pytest.raises(UserError, match=r"chat_template\.jinja is of a kind .* name one with --task\.template"):
        own_template(tmp_path)
    (tmp_path / JINJA).write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja: byte 0 is not UTF-8"):
        own_template(tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError, match=r"task\.json.*put the run's own back"):
        own_template(tmp_path)
