"""The command line, generated from the config's dataclasses.

A command module has `SECTIONS` (the parts of the config it reads), `options(parser)` for flags of its own, and
`run(config, args) -> report`, a plain dict; its `wrote` and `next` are printed at the end, and its `exit_code`, where
there is one, is the command's. Heavy imports belong inside `run`, so that `--help` stays fast.
"""

import argparse
import ast
import contextlib
import dataclasses
import json
import os
import runpy
import shlex
import shutil
import sys
import traceback
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from chinchilla_jax import config as settings
from chinchilla_jax.commands.device_faults import explained
from chinchilla_jax.commands.stopping import asked_to, terminable
from chinchilla_jax.config import Config, ModelConfig, closest, require
from chinchilla_jax.data.sources import with_store
from chinchilla_jax.errors import StorageError, UserError
from chinchilla_jax.model import presets
from chinchilla_jax.training.metrics import finite

ALIASES = {"data.data_dir": "--data-dir"}  # setting -> a shorter flag


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with a hint, as `UserError`."""

    sections: frozenset[str] = frozenset()

    def error(self, message: str):
        raise UserError(f"{message}; see `{self.prog} --help`")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parse, accepting underscores for dashes in names, and hint at the neighbour of an unknown flag."""
        argv = [_dashes(a) for a in argv]
        args, unknown = self.parse_known_args(argv)
        if unknown:
            flag = unknown[0].split("=")[0]
            if flag.split(".")[0].removeprefix("--") in typing.get_type_hints(Config).keys() - self.sections:
                raise UserError(f"{flag} is no setting of this command; see `{self.prog} --help`")
            raise UserError(
                f"unknown option {flag}{closest(flag, self._option_string_actions)}; see `{self.prog} --help`"
            )
        return args


def _dashes(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def run(name: str, summary: str, module: types.ModuleType, argv: list[str]) -> int:
    """Parse, run the command, print its report; user errors become one line and an exit code."""
    debug = "--debug" in argv
    try:
        parser = _parser(name, summary, module)
        args = parser.parse(argv)
        config = resolve(args)
        with _quiet() if args.json else contextlib.nullcontext(sys.stdout) as out:
            with terminable():
                report = module.run(config, args)
            if _speaks():
                _closing(report, args.json, out)
    except UserError as error:
        return fail(error, error.exit_code, debug)
    except OSError as error:
        return fail(error, StorageError.exit_code, debug)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("chinchilla_jax"):
            raise
        mend = "run `make env` and use .venv/bin/python, or install the extra that has it"
        return fail(UserError(f"{sys.executable} has no package {error.name}; {mend}"), UserError.exit_code, debug)
    except BaseException as error:
        known = asked_to(error) or explained(error, name)
        if known is None:
            raise
        return fail(known, known.exit_code, debug)
    return report.get("exit_code", 0)


@contextlib.contextmanager
def _quiet() -> Iterator[TextIO]:
    """Inside, what is printed goes to standard error, C++'s lines too; yields the standard output there was before."""
    out = sys.stdout
    with contextlib.ExitStack() as stack:
        if out is sys.__stdout__:  # and not a test's or a notebook's, which C++ does not reach
            out.flush()
            out = stack.enter_context(os.fdopen(os.dup(1), "w", encoding="utf-8"))
            stack.callback(os.dup2, out.fileno(), 1)
            os.dup2(2, 1)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield out


def _speaks() -> bool:
    """Whether this process reports: of many, the first."""
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


def fail(error: Exception, code: int, debug: bool) -> int:
    """Print the one line (a traceback too with --debug) and hand back the exit code."""
    if debug:
        traceback.print_exc()
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _closing(report: dict, as_json: bool, out: TextIO) -> None:
    if as_json:
        print(json.dumps(finite(report), default=lambda scalar: finite(scalar.item())), file=out, flush=True)
        return
    for path in report.get("wrote", ()):
        print(f"wrote {path}")
    if report.get("next"):
        print(f"next: {report['next']}")


def line(*words: str) -> str:
    """The command line that runs `words` with the interpreter that is running now."""
    return shlex.join([interpreter(), "-m", "chinchilla_jax", *words])


def interpreter() -> str:
    """`python` where that is the one running, else its path; below the working directory without the way there."""
    own, found = Path(sys.executable or "python"), shutil.which("python")
    if found and Path(found).parent == own.parent and os.path.realpath(found) == os.path.realpath(own):
        return "python"
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def _parser(name: str, summary: str, module: types.ModuleType) -> Parser:
    parser = Parser(
        prog=f"python -m chinchilla_jax {name}",
        usage=f"python -m chinchilla_jax {name} [options] [--SECTION.SETTING VALUE ...]",
        description=summary,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="a .py file whose config() returns a Config, or a config.json")
    parser.add_argument("--run-dir", metavar="DIR", help="the folder that this run lives in")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.options(parser)
    parser.sections = frozenset(module.SECTIONS)
    hints = typing.get_type_hints(Config)
    for section in module.SECTIONS:
        group = parser.add_argument_group(section, (hints[section].__doc__ or "").splitlines()[0])
        kinds = typing.get_type_hints(hints[section])
        for item in dataclasses.fields(hints[section]):
            _flag(group, f"{section}.{item.name}", kinds[item.name], item)
    return parser


def _flag(group, path: str, kind: Any, item: dataclasses.Field) -> None:
    shown = "''" if item.default == "" else str(item.default).replace("%", "%%")
    group.add_argument(
        "--" + path.replace("_", "-"),
        *([ALIASES[path]] if path in ALIASES else []),
        dest=path,
        default=argparse.SUPPRESS,
        metavar=settings.describe_type(kind),
        help=f"{item.metadata['help']} [{shown}]",
        **({"nargs": "+"} if kind == tuple[str, ...] else {"type": lambda text: _value(kind, text)}),
    )


def _value(kind: Any, text: str) -> Any:
    """The Python value of a flag's text; a text that does not fit is passed on for `config.check` to refuse."""
    if kind is str or typing.get_origin(kind) is Literal:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return kind(text) if kind in (int, float) else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def resolve(args: argparse.Namespace) -> Config:
    """The config file (or the run directory's, or the defaults), then the preset, then single settings."""
    given = {name: value for name, value in vars(args).items() if "." in name}
    require("://" not in (args.run_dir or ""), f"--run-dir {args.run_dir}: runs live in local folders; name one")
    stored = Path(args.run_dir, "config.json") if args.run_dir else None
    planned = getattr(args, "plan", "")
    require(not (planned and args.config), "--plan and --config both name a config; give one")
    if args.config or planned:
        config = load(Path(args.config or planned))
    elif stored and stored.exists():
        config = load(stored)
    else:
        config = Config()
    if given.get("model.preset"):
        shape = {f"model.{k}": v for k, v in presets.settings(given["model.preset"]).items()}
        given = {**shape, **given}
    config = settings.replace(config, {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    return dataclasses.replace(config, data=with_store(config.data))


def load(path: Path) -> Config:
    """A config from a .py file with `config()`, or from JSON; every fault is one line that names the file."""
    require(path.is_file(), f"{path}: no such config file")
    try:
        if path.suffix == ".json":
            values = json.loads(path.read_text())
            values = values.get("config", values) if isinstance(values, dict) else values  # a plan.json holds one
            return settings.from_dict(Config, _with_preset(values))
        made = runpy.run_path(os.fspath(path)).get("config")
        require(callable(made), "define a function config() that returns a Config")
        config = made()
        require(isinstance(config, Config), f"config() returned {type(config).__name__}, not Config")
        config = dataclasses.replace(config, model=_shaped(config.model))
        return settings.from_dict(Config, settings.to_dict(config))  # a dataclass does not check types, this does
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # whatever a config file does wrong is the user's to mend
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error


def _with_preset(values: Any) -> Any:
    """A JSON config with the shape of the preset that it names, below what it says itself."""
    model = values.get("model") if isinstance(values, dict) else None
    if not isinstance(model, dict) or not model.get("preset"):
        return values
    return {**values, "model": {**presets.settings(model["preset"]), **model}}


def _shaped(model: ModelConfig) -> ModelConfig:
    """`ModelConfig(preset=NAME, ...)` with the shape of NAME below what it says itself.

    One that has anything of that shape already was made by `presets.preset(NAME, ...)`, and stays as it is.
    """
    if not model.preset:
        return model
    told = {k: v for k, v in presets.settings(model.preset).items() if v != getattr(ModelConfig(), k)}
    same = [k for k in told if k != "preset" and getattr(model, k) == told[k]]
    missing = {k: v for k, v in told.items() if getattr(model, k) == getattr(ModelConfig(), k)}
    return model if same else dataclasses.replace(model, **missing)
