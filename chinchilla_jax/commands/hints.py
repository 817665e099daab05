"""Commands that a message tells the user to type, as they work where this one was started."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from chinchilla_jax.config import Config

EXTRAS = {"lm_eval": "lm-eval", "apache_beam": "beam", "wandb": "wandb"}  # by what is imported, beyond `make env`
ROOT = Path(__file__).resolve().parents[2]  # the clone, where the package runs from one


def line(*words: str) -> str:
    """The command line that runs `words` with the interpreter that is running now."""
    return shlex.join([interpreter(), "-m", "chinchilla_jax", *words])


def use(config: Config, run_dir: str, prompt: str = "Once upon a time") -> str:
    """The command that shows what the model of a run with this `config` does: a text, or the task that it has a head
    for, which writes none."""
    from chinchilla_jax.tasks.kinds.table import heads

    words = ("evaluate", "--task", "--task.test", "FILE") if heads(config) else ("generate", "--prompt", prompt)
    return line(words[0], "--run-dir", run_dir, *words[1:])


def interpreter() -> str:
    """`python` where that is the one running, else its path; below the working directory without the way there."""
    own, found = Path(sys.executable or "python"), shutil.which("python")
    if found and Path(found).parent == own.parent and os.path.realpath(found) == os.path.realpath(own):
        return "python"
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def in_clone() -> bool:
    """Whether the package runs from a clone, where `make` knows what to do, and not from where pip put it."""
    return (ROOT / "Makefile").is_file() and (ROOT / "requirements.txt").is_file()


def install(module: str = "") -> str:
    """The command that brings the packages, with the extra that has `module`."""
    extra = EXTRAS.get(module, "")
    if in_clone():
        return "make env" + (f" EXTRA={extra}" if extra else "")
    return f'{interpreter()} -m pip install "chinchilla_jax[{extra or "train"}]"'


def quickstart() -> str:
    """The first command for a newcomer."""
    return "make quickstart" if in_clone() else line("prepare", "--config", "quickstart")
