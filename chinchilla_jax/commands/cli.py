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
import math
import os
import runpy
import sys
import traceback
import types
import typing
from pathlib import Path
from typing import Any, Literal

from chinchilla_jax import config as settings
from chinchilla_jax.commands.stopping import asked_to, terminable
from chinchilla_jax.config import Config, closest, require
from chinchilla_jax.errors import StorageError, UserError
from chinchilla_jax.model import presets


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
        as_json = getattr(args, "json", False)
        with terminable(), contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            report = module.run(config, args)
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
        stopped = asked_to(error)
        if stopped is None:
            raise
        return fail(stopped, stopped.exit_code, debug)
    if as_json:
        print(json.dumps(_finite(report), default=_item))
    else:
        _closing(report)
    return report.get("exit_code", 0)


def _item(number: Any) -> Any:
    """A NumPy or JAX scalar as Python's own, for JSON."""
    return _finite(number.item())


def _finite(value: Any) -> Any:
    """`value` with null for what JSON cannot say: infinities and not-a-number."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fail(error: Exception, code: int, debug: bool) -> int:
    """Print the one line (a traceback too with --debug) and hand back the exit code."""
    if debug:
        traceback.print_exc()
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _closing(report: dict) -> None:
    for path in report.get("wrote", ()):
        print(f"wrote {path}")
    if report.get("next"):
        print(f"next: {report['next']}")


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
    stored = Path(args.run_dir, "config.json") if args.run_dir else None
    if args.config:
        config = load(Path(args.config))
    elif stored and stored.exists():
        config = load(stored)
    else:
        config = Config()
    if given.get("model.preset"):
        shape = {f"model.{k}": v for k, v in presets.settings(given["model.preset"]).items()}
        given = {**shape, **given}
    return settings.replace(config, {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def load(path: Path) -> Config:
    """A config from a .py file with `config()`, or from JSON; every fault is one line that names the file."""
    require(path.is_file(), f"{path}: no such config file")
    try:
        if path.suffix == ".json":
            return settings.from_dict(Config, json.loads(path.read_text()))
        made = runpy.run_path(os.fspath(path)).get("config")
        require(callable(made), "define a function config() that returns a Config")
        config = made()
        require(isinstance(config, Config), f"config() returned {type(config).__name__}, not Config")
        return settings.from_dict(Config, settings.to_dict(config))  # a dataclass does not check types, this does
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # whatever a config file does wrong is the user's to mend
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
