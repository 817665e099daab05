"""The flags of a command: its own, and one for every setting of the config's dataclasses that it reads."""

import argparse
import ast
import dataclasses
import difflib
import re
import types
import typing
from typing import Any, Literal

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, closest, expanded
from chinchilla_jax.errors import UserError

LISTS = (tuple[str, ...], tuple[float, ...])  # written as several words
ALIASES = {"data.data_dir": "--data-dir"}  # setting -> a shorter flag
ALONE = {"distributed": False, "coordinator": "", "processes": 0, "process": -1}  # flags of a process alone
PATHS = {"DIR", "FILE", "PATH", "RUN", "RUNS", "LAW", "A", "B"}  # metavars of options that name a file or a folder


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line with a hint, as `UserError`."""

    def error(self, message: str):
        if found := re.match(r"argument (?:\S+/)?(\S+): expected", message):
            message += f" (write {found[1]}=VALUE for a value that begins with a dash)"
        raise UserError(f"{message}; see `{self.prog} --help`")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parse, accepting underscores for dashes in the names of options, and `~` in every path."""
        args, unknown = self.parse_known_args([self._named(word) for word in argv])
        if unknown:
            flag = unknown[0].split("=")[0]
            if _is_setting(flag):
                raise UserError(f"{flag} is no setting of this command; see `{self.prog} --help`")
            hint = _meant(flag, list(self._option_string_actions))
            raise UserError(f"unknown option {flag}{hint}; see `{self.prog} --help`")
        for action in self._actions:
            value = getattr(args, action.dest, None)
            if isinstance(value, str) and (action.metavar in PATHS or action.dest in ("law", "price")):
                setattr(args, action.dest, expanded(value))
        return args

    def _named(self, word: str) -> str:
        """`word` with dashes if it is an option that is written with underscores; a value stays as it is."""
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        return dashed + equals + value if dashed in self._option_string_actions else word


def _meant(flag: str, known: list[str]) -> str:
    """A hint in brackets: the options that have the typed name as a word of theirs, else the one that looks like it.

    Inside a section only names are compared: most of --optimizer.lr is its section, which all settings of that share.
    """
    section, dot, name = flag.removeprefix("--").rpartition(".")
    start = f"--{section}{dot}"
    names = {option.removeprefix(start): option for option in known if option.startswith(start)}
    having = [option for end, option in names.items() if name in end.rpartition(".")[2].split("-")]
    exact = [option for option in having if option.endswith(f".{name}")]
    near = [names[end] for end in difflib.get_close_matches(name, names, n=1)]
    found = exact or having[:3] or near
    return f" (did you mean {' or '.join(found)}?)" if found else "" if dot and names else closest(flag, known)


def _is_setting(flag: str) -> bool:
    """Whether a flag names a setting of any command."""
    section, _, name = flag.removeprefix("--").replace("-", "_").partition(".")
    kind = typing.get_type_hints(Config).get(section)
    return kind is not None and name in typing.get_type_hints(kind)


def parser_of(name: str, summary: str, module: types.ModuleType) -> Parser:
    parser = Parser(
        prog=f"python -m chinchilla_jax {name}",
        usage=f"python -m chinchilla_jax {name} [options] [--SECTION.SETTING VALUE ...]",
        description=summary,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a .py file whose config() returns a Config, a config.json, or a name, such as quickstart",
    )
    parser.add_argument("--run-dir", metavar="DIR", help="the folder that this run lives in")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.options(parser)
    if getattr(module, "CLUSTER", False):
        _cluster_flags(parser)
    hints = typing.get_type_hints(Config)
    for section in dict.fromkeys(name.partition(".")[0] for name in module.SECTIONS):
        group = parser.add_argument_group(section, (hints[section].__doc__ or section).splitlines()[0])
        _flags(group, section, hints[section], module.SECTIONS)
    return parser


def _cluster_flags(parser: Parser) -> None:
    group = parser.add_argument_group("cluster", "one program on many hosts, a process a host")
    group.add_argument("--distributed", action="store_true", help="join the processes of a TPU pod, Slurm or MPI job")
    group.add_argument("--coordinator", default="", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--processes", type=int, default=0, metavar="N", help="number of processes")
    group.add_argument("--process", type=int, default=-1, metavar="I", help="number of this process")
    group.add_argument(
        "--peer-timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds without a sign of life from a process that are taken for its end [30]",
    )


def _flags(group, path: str, of: type, wanted: tuple[str, ...]) -> None:
    """Flags for the settings of a dataclass and of those inside it that `wanted` names, alone or by their section."""
    kinds = typing.get_type_hints(of)
    for item in dataclasses.fields(of):
        name, kind = f"{path}.{item.name}", kinds[item.name]
        if dataclasses.is_dataclass(kind):
            _flags(group, name, kind, wanted)
        elif any(f"{name}.".startswith(f"{prefix}.") for prefix in wanted):
            _flag(group, name, kind, item)


def _flag(group, path: str, kind: Any, item: dataclasses.Field) -> None:
    group.add_argument(
        settings.flag(path),
        *([ALIASES[path]] if path in ALIASES else []),
        dest=path,
        default=argparse.SUPPRESS,
        metavar=settings.describe_type(kind),
        help=f"{item.metadata['help']} [{settings.typed(item.default)}]".replace("%", "%%"),
        **({"nargs": "+", "type": kind.__args__[0]} if kind in LISTS else {"type": lambda text: _value(kind, text)}),
    )


def _value(kind: Any, text: str) -> Any:
    """The Python value of a flag's text; a text that does not fit is passed on for `config.check` to refuse."""
    if (inner := settings.chosen(kind)) is not kind:
        return None if text == settings.AUTO else _value(inner, text)
    if kind is str or typing.get_origin(kind) is Literal:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        value = kind(text) if kind in (int, float) else ast.literal_eval(text)
        return (value,) if kind == tuple[int, ...] and type(value) is int else value
    except (ValueError, SyntaxError):
        return text
