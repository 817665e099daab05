"""The commands, one line each; imports nothing heavy."""

import importlib
import sys

from chinchilla_jax import __version__
from chinchilla_jax.config import closest

COMMANDS = {
    "doctor": "devices, versions, disk and memory: what will work here",
    "plan": "a budget -> parameters, tokens and loss with intervals, and a config that trains as it is",
    "prepare": "text -> SentencePiece model and token store",
    "pretrain": "a token store -> a trained model in a run directory",
    "finetune": "a run directory and examples -> a tuned run directory",
    "fit": "a table of runs -> a scaling law, how sure it is, and what other choices would say",
    "compare": "two laws or tables of runs -> the speed-up of one recipe over the other",
    "evaluate": "loss, perplexity and bits per byte over the whole validation set; --attack: under attack too",
    "generate": "continue a prompt, or chat with the model in the terminal",
    "serve": "a run directory over HTTP, with OpenAI's API",
    "sweep": "a ladder of small runs within a budget -> one row per final loss",
    "import": "a Hugging Face folder or a GGUF file -> a run directory",
    "export": "a run -> a Hugging Face folder, a GGUF file or a PEFT adapter",
    "merge": "an adapter and its base -> a run directory that needs no other",
    "prune": "a trained run -> a sparse one in one shot: magnitude, Wanda, SparseGPT",
    "supervise": "run another command, again after a crash or a lost peer, and say where the time went",
    "report": "a run directory -> report.md with its picture",
}

USAGE = "usage: python -m chinchilla_jax COMMAND [--config FILE] [--run-dir DIR] [--SECTION.SETTING VALUE ...]"


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit codes are those of `errors.py`."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
        print("\n".join([USAGE, "", *lines, "", "COMMAND --help lists the settings of a command."]))
        return 0
    name, *rest = argv
    if name == "--version":
        print(f"chinchilla_jax {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"error: unknown command {name!r}{closest(name, COMMANDS)}; see --help", file=sys.stderr)
        return 78
    from chinchilla_jax.commands import cli

    return cli.run(name, COMMANDS[name], importlib.import_module(f"chinchilla_jax.commands.{name}"), rest)


def program() -> int:
    """`main` as a process of its own."""
    from chinchilla_jax.commands import startup

    startup.begin()
    return main()


if __name__ == "__main__":
    sys.exit(program())
