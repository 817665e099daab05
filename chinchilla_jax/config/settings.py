"""How a setting is declared, checked, read from a dict, changed and told apart; none is named here."""

import dataclasses
import difflib
import functools
import json
import math
import os
import types
import typing
from dataclasses import field
from typing import Any, Literal

from chinchilla_jax.errors import UserError


def setting(default: Any, help: str) -> Any:
    """A field with its one-line help."""
    return field(default=default, metadata={"help": help})


def section(kind: type) -> Any:
    """A field that holds further settings, all at their defaults."""
    return field(default_factory=kind, metadata={"help": (kind.__doc__ or "").splitlines()[0]})


def require(ok: bool, message: str) -> None:
    """Raise the one-line `UserError` unless `ok`."""
    if not ok:
        raise UserError(message)


def flag(path: str) -> str:
    """A dotted setting as the command line writes it, which every message names it by."""
    return "--" + path.replace("_", "-")


def typed(value: Any) -> str:
    """A setting's value as it would be typed behind its flag."""
    if isinstance(value, tuple):
        return " ".join(map(typed, value)) or "empty"
    if isinstance(value, bool):
        return str(value).lower()
    return AUTO if value is None else str(value) or "empty"


def closest(name: str, names) -> str:
    """A hint in brackets if `name` looks like one of `names`, else nothing."""
    match = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def expanded(path: str) -> str:
    """`path` with `~` and `~user` replaced by the home folder; a `UserError` where there is none."""
    found = os.path.expanduser(path)
    known = not found.startswith("~") or os.path.lexists(found)
    require(known, f"{path}: there is no home folder {path.split('/')[0]} here (is HOME set?); write the path out")
    return found


def to_dict(config: Any) -> dict:
    """The plain nested dict of a config, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type, values: dict, path: str = "") -> Any:
    """The config `cls` from a nested dict; a missing key keeps its default, an unknown one is an error."""
    require(isinstance(values, dict), f"{path or 'config'}: expected a table of settings, found {values!r}")
    hints = _hints(cls)
    for name in values:
        _check_known(name, hints, path)
    return cls(**{name: check(hints[name], value, f"{path}{name}") for name, value in values.items()})


_hints = functools.cache(typing.get_type_hints)  # asked for with every setting that is read


def _check_known(name: str, known, path: str) -> None:
    if name not in known:  # the search for the closest takes longer than all else
        raise UserError(f"unknown setting {path}{name}{closest(name, known)}")


AUTO = "auto"  # how the command line writes None


def chosen(kind: Any) -> Any:
    """X of a setting of type X | None, whose None leaves the choice to the program; any other type as it is."""
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def check(kind: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `kind`, or a one-line error that names `path`."""
    if (inner := chosen(kind)) is not kind:
        return None if value in (None, AUTO) else check(inner, value, path)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_dict(kind, value, f"{path}.")
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise UserError(f"{flag(path)}: {value!r} is none of {', '.join(choices)}{closest(str(value), choices)}")
        return value
    if typing.get_origin(kind) is tuple:
        require(isinstance(value, (list, tuple)), f"{flag(path)}: expected a list, found {value!r}")
        of = typing.get_args(kind)
        of = [of[0]] * len(value) if of[-1] is Ellipsis else of
        require(len(of) == len(value), f"{flag(path)}: expected {len(of)} entries, found {value!r}")
        return tuple(check(k, v, path) for k, v in zip(of, value))
    if kind is float and type(value) is int:
        return float(value)
    require(type(value) is kind, f"{flag(path)}: expected {WORDS[kind]}, found {value!r}")
    require(kind is not float or math.isfinite(value), f"{flag(path)}: expected a finite number, found {value!r}")
    return value


def replace(config: Any, values: dict[str, Any]) -> Any:
    """`config` with dotted settings changed, such as {"train.steps": 5}."""
    nested: dict = {}
    for path, value in values.items():
        room = nested
        *parents, leaf = path.split(".")
        for parent in parents:
            room = room.setdefault(parent, {})
        room[leaf] = value
    return _merge(config, nested, "")


def get(config: Any, path: str) -> Any:
    """The value of a dotted setting."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _merge(config: Any, nested: dict, path: str) -> Any:
    hints, changes = _hints(type(config)), {}
    for name, value in nested.items():
        _check_known(name, hints, path)
        old = getattr(config, name)
        inner = dataclasses.is_dataclass(old) and isinstance(value, dict)
        changes[name] = _merge(old, value, f"{path}{name}.") if inner else check(hints[name], value, path + name)
    return dataclasses.replace(config, **changes)


def differences(old: dict, new: dict, path: str = "") -> dict[str, tuple]:
    """Dotted settings on which two config dicts differ, with both values."""
    found = {}
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{path}{name}.")
        elif a != b:
            found[path + name] = (a, b)
    return found


def describe_type(kind: Any) -> str:
    """The type of a setting as `--help` shows it."""
    if (inner := chosen(kind)) is not kind:
        return describe_type(inner)
    if typing.get_origin(kind) is Literal:
        return "|".join(typing.get_args(kind))
    if isinstance(kind, types.GenericAlias):
        return "N,N,..." if kind == tuple[int, ...] else "LIST"
    return kind.__name__.upper()
