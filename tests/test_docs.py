"""The README and the pages in docs/: every command parses, and runs here unless its cost stands beside it."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from chinchilla_jax.__main__ import COMMANDS, main
from chinchilla_jax.commands import flags, hints
from tests.runs import ROOT

PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "lab_book.md")]
OURS = "python -m chinchilla_jax "


def commands(page: Path) -> list[tuple[str, str]]:
    """The command lines of a page's code blocks, each with the comment that follows it ("" for none)."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith(("python ", "make ")):
                command, _, comment = line.partition("#")
                found.append((command.strip(), comment.strip()))
    return found


ALL = [pytest.param(page, *pair, id=f"{page.name}: {pair[0][:60]}") for page in PAGES for pair in commands(page)]


@pytest.mark.parametrize("page, command, comment", ALL)
def test_a_command_parses(page, command, comment):
    """Its name and its flags exist; a script or a make target is there."""
    words = shlex.split(command.replace("[", "").replace("]", ""))
    if command.startswith(OURS):
        name, *rest = words[3:]
        assert name in COMMANDS
        flags.parser_of(name, "", importlib.import_module(f"chinchilla_jax.commands.{name}")).parse(rest)
        return
    assert comment, f"{page.name}: no cost beside {command}"
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    else:
        assert (ROOT / words[1]).is_file()


def test_commands_without_a_cost_run(whole_run, tiny_store, tmp_path, monkeypatch, capsys):
    """In the order of the pages, on a tiny run in the place of the reader's own."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "data/mine").symlink_to(tiny_store)
    hints.shutil.copytree(whole_run, tmp_path / "runs/mine")
    monkeypatch.chdir(tmp_path)
    short = {"generate": ["--max-new-tokens", "4"]}
    unpriced = {c for page in PAGES for c, comment in commands(page) if c.startswith(OURS) and not comment}
    assert unpriced
    for command in sorted(unpriced):
        name, *rest = shlex.split(command)[3:]
        assert main([name, *rest, *short.get(name, [])]) == 0, f"{command}\n{capsys.readouterr()}"


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_links_of_a_page_lead_somewhere(page):
    """Files that a page links to are there."""
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
