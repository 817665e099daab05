"""The command line, generated from the config's dataclasses.

A command module has `SECTIONS` (what it reads of the config: "train", or "train.seq_len"), `options(parser)`, and
`run(config, args) -> report`, a plain dict; its `wrote` and `next` are printed at the end, and its `exit_code`, where
there is one, is the command's. Heavy imports belong inside `run`, so that `--help` stays fast.
"""

import argparse
import ast
import contextlib
import dataclasses
import json
import os
import re
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
from chinchilla_jax.commands import startup
from chinchilla_jax.commands.device_faults import explained
from chinchilla_jax.commands.stopping import asked_to, terminable
from chinchilla_jax.config import Config, ModelConfig, closest, expanded, require, stored
from chinchilla_jax.data.naming import with_store
from chinchilla_jax.disk import finite, write_json
from chinchilla_jax.errors import StorageError, UserError
from chinchilla_jax.model import presets

LISTS = (tuple[str, ...], tuple[float, ...])  # written as several words
ALIASES = {"data.data_dir": "--data-dir"}  # setting -> a shorter flag
ALONE = {"distributed": False, "coordinator": "", "processes": 0, "process": -1}  # flags of a process alone
ROOT = Path(__file__).resolve().parents[2]  # the clone, where the package runs from one
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SETTINGS_WITH_PATHS = (
    "data.store", "data.data_dir", "data.tokenizer", "data.decontaminate", "train.compile_cache", "tune.base",
)  # fmt: skip
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
            raise UserError(
                f"unknown option {flag}{closest(flag, self._option_string_actions)}; see `{self.prog} --help`"
            )
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


def _is_setting(flag: str) -> bool:
    """Whether a flag names a setting of any command."""
    section, _, name = flag.removeprefix("--").replace("-", "_").partition(".")
    kind = typing.get_type_hints(Config).get(section)
    return kind is not None and name in typing.get_type_hints(kind)


def run(name: str, summary: str, module: types.ModuleType, argv: list[str]) -> int:
    """Parse, run the command, print its report; user errors become one line and an exit code."""
    debug, code = "--debug" in argv, 0
    try:
        parser = _parser(name, summary, module)
        args = parser.parse(argv)
        config = resolve(args)
        if _is_run(args.run_dir) and args.config and "model" not in module.SECTIONS:
            print(
                f"note: of --config only {', '.join(module.SECTIONS)} count here; the model is the run's",
                file=sys.stderr,
            )
        with _quiet() if args.json else contextlib.nullcontext(sys.stdout) as out:
            with terminable():
                join(args)
                with contextlib.nullcontext() if speaks() else _silent():
                    report = module.run(config, args)
            if speaks():
                _closing(report, args.json, out)
                code = _arrived(report, args.json, out)
    except UserError as error:
        return fail(error, error.exit_code, debug)
    except OSError as error:
        return fail(error, StorageError.exit_code, debug)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("chinchilla_jax"):
            raise
        way = "run `make env` and use .venv/bin/python" if in_clone() else install()
        fix = f"{way}, or install the extra that has it"
        return fail(UserError(f"{sys.executable} has no package {error.name}; {fix}"), UserError.exit_code, debug)
    except BaseException as error:
        known = asked_to(error) or explained(error, name)
        if known is None:
            if others := _others():
                traceback.print_exc()
                return fail(error, 1, False)
            raise
        if others := _others():
            others.failed(error)
        return fail(known, known.exit_code, debug)
    code = code or report.get("exit_code", 0)
    if others := _others():
        others.leave(code)
    return code


def _arrived(report: dict, as_json: bool, out: TextIO) -> int:
    """The exit code of a report that could not be written to standard output; 0 if files hold the results, or if the
    reader has gone away, as in `| head`."""
    failure = startup.lost(out)
    if failure is None or isinstance(failure, BrokenPipeError):
        return 0
    print(f"warning: standard output could not be written ({failure.strerror})", file=sys.stderr)
    return StorageError.exit_code if as_json or not report.get("wrote") else 0


@contextlib.contextmanager
def _quiet() -> Iterator[TextIO]:
    """Inside, what is printed goes to standard error, C++'s lines too; yields the standard output there was before."""
    out = sys.stdout
    with contextlib.ExitStack() as stack:
        if out is sys.__stdout__:  # and not a test's or a notebook's, which C++ does not reach
            out.flush()
            out = stack.enter_context(startup.writer(os.dup(1), own=True))
            stack.callback(os.dup2, out.fileno(), 1)
            os.dup2(2, 1)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield out


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Inside, nothing is printed but errors: of many processes the first speaks for all."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def speaks() -> bool:
    """Whether this process reports: of many, the first."""
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


def fail(error: BaseException, code: int, debug: bool) -> int:
    """Print the one line (a traceback too with --debug) and hand back the exit code.

    One of several processes tells the others and ends here: a usual end would wait for them.
    """
    if debug:
        traceback.print_exc()
    others = _others()
    if others:
        others.failed(error)
    if not others or not others.told:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    if others:
        others.leave(code)
    return code


def _others():
    """The other processes of this run, or None."""
    peers = sys.modules.get("chinchilla_jax.parallel.peers")  # not there where nothing has imported JAX
    return peers.current() if peers else None


def join(args: argparse.Namespace) -> None:
    """Join the other processes of a cluster, where the command line names one."""
    if not any(getattr(args, name, None) not in (None, default) for name, default in ALONE.items()):
        return
    from chinchilla_jax.parallel import distributed, host

    host.keep_freed_memory()
    given = args.distributed, args.coordinator, args.processes, args.process, args.peer_timeout
    distributed.initialize(distributed.Cluster(*given))


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


def keep(path: Path, report: dict) -> list[str]:
    """Write figures that are printed anyway; what was written, nothing (and a warning) where it cannot be."""
    if not speaks():
        return []
    try:
        write_json(path, report)
    except OSError as error:
        print(f"warning: {path} could not be written ({error.strerror}); the figures are printed only", file=sys.stderr)
        return []
    return [str(path)]


def writable(folder: Path, option: str) -> None:
    """A `StorageError` before the work, where its result could not be put into `folder`; nothing is made."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise StorageError(f"{option} {folder}: {place} cannot be written; choose another folder")


def in_clone() -> bool:
    """Whether the package runs from a clone, where `make` knows what to do, and not from where pip put it."""
    return (ROOT / "Makefile").is_file() and (ROOT / "requirements.txt").is_file()


def install() -> str:
    """The command that brings the packages."""
    return "make env" if in_clone() else f'{interpreter()} -m pip install "chinchilla_jax[train]"'


def quickstart() -> str:
    """The first command for a newcomer."""
    return "make quickstart" if in_clone() else line("prepare", "--config", "quickstart")


def _parser(name: str, summary: str, module: types.ModuleType) -> Parser:
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
    shown = "''" if item.default == "" else str(item.default).replace("%", "%%")
    shown = settings.AUTO if item.default is None else shown
    group.add_argument(
        "--" + path.replace("_", "-"),
        *([ALIASES[path]] if path in ALIASES else []),
        dest=path,
        default=argparse.SUPPRESS,
        metavar=settings.describe_type(kind),
        help=f"{item.metadata['help']} [{shown}]",
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
        return kind(text) if kind in (int, float) else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _is_run(run_dir: str | None) -> bool:
    """Whether a folder has the config of a run."""
    return bool(run_dir) and Path(run_dir, "config.json").exists()


def resolve(args: argparse.Namespace) -> Config:
    """The config file (or the run directory's, or the defaults), then the preset, then single settings."""
    given = {name: value for name, value in vars(args).items() if "." in name}
    require("://" not in (args.run_dir or ""), f"--run-dir {args.run_dir}: runs live in local folders; name one")
    own = Path(args.run_dir, "config.json") if args.run_dir else None
    planned = getattr(args, "plan", "")
    require(not (planned and args.config), "--plan and --config both name a config; give one")
    defaults = getattr(args, "defaults", {})
    if args.config or planned:
        config = load(Path(args.config or planned))
        unsaid = {name: value for name, value in defaults.items() if name not in told(config)}
        config = settings.replace(config, unsaid)
    elif own and own.exists():
        config = _with_store_of(args.run_dir, load(own))
    else:
        config = settings.replace(Config(), defaults)
    if given.get("model.preset"):
        shape = {f"model.{k}": v for k, v in presets.settings(given["model.preset"]).items()}
        given = {**shape, **given}
    config = settings.replace(config, {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    typed = {name: settings.get(config, name) for name in SETTINGS_WITH_PATHS}
    full = {k: tuple(map(expanded, v)) if isinstance(v, tuple) else expanded(v) for k, v in typed.items()}
    config = settings.replace(config, full)
    return dataclasses.replace(config, data=with_store(config.data))


def told(config: Config) -> set[str]:
    """The settings in which a config differs from the defaults: what its file says."""

    def leaves(values: dict, path: str) -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            yield from leaves(value, f"{path}{name}.") if isinstance(value, dict) else [(f"{path}{name}", value)]

    default = dict(leaves(settings.to_dict(Config()), ""))
    return {name for name, value in leaves(settings.to_dict(config), "") if value != default.get(name)}


def _with_store_of(run_dir: str, config: Config) -> Config:
    """A run's config keeps its store as it was typed: found again from another folder, where it lies above the run."""
    store = Path(config.data.store)
    if not config.data.store or "://" in config.data.store or store.exists():
        return config
    places = (above / store for above in Path(run_dir).resolve().parents)
    found = next((place for place in places if (place / "manifest.json").is_file()), store)
    return settings.replace(config, {"data.store": str(found)})


def find(path: Path) -> Path:
    """A config's file: `path`, or one that comes with the package, as `quickstart` or as the clone's own path to it."""
    found = (file for file in CONFIGS.rglob("*.py") if file.stem != "__init__")
    shipped = {file.relative_to(CONFIGS).with_suffix("").as_posix(): file for file in found}
    if path.is_file():
        return path
    name = path.as_posix()
    name = name.removeprefix("configs/").removesuffix(".py") if name.startswith("configs/") else name
    if name in shipped:
        return shipped[name]
    names = ", ".join(sorted(shipped))
    raise UserError(f"{path}: no such config file{closest(name, shipped)}; the package brings {names}")


def load(path: Path) -> Config:
    """A config from a .py file with `config()`, or from JSON; every fault is one line that names the file."""
    path = find(path)
    try:
        if path.suffix == ".json":
            values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_told_once)
            values = values.get("config", values) if isinstance(values, dict) else values  # a plan.json holds one
            return _without_cache(stored.from_json(_with_preset(values)), path)
        with _importable(path.parent):
            made = runpy.run_path(os.fspath(path)).get("config")
            require(callable(made), "define a function config() that returns a Config")
            config = made()
        require(isinstance(config, Config), f"config() returned {type(config).__name__}, not Config")
        config = dataclasses.replace(config, model=_shaped(config.model))
        return settings.from_dict(Config, settings.to_dict(config))  # a dataclass does not check types, this does
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # whatever a config file does wrong is for the user to correct
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error


def _told_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON table; a setting that is there twice would be dropped without a word."""
    twice = {name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1}
    require(not twice, f"{', '.join(sorted(twice))}: there more than once; keep one")
    return dict(pairs)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Inside, modules in `folder` can be imported, as by a script that lies there; afterwards they are forgotten, so
    that another folder's module of the same name is not taken for it."""
    place, before = folder.resolve(), set(sys.modules)
    sys.path.insert(0, str(place))
    try:
        yield
    finally:
        sys.path.remove(str(place))
        mine = {name for name in set(sys.modules) - before if _lies_in(place, sys.modules[name])}
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in mine:
                del sys.modules[name]


def _lies_in(folder: Path, module: types.ModuleType) -> bool:
    """Whether a module is a file of `folder`, or a package right below it."""
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    return any(Path(place).parent == folder for place in places if place)


def _without_cache(config: Config, path: Path) -> Config:
    """A JSON file may come from anybody, and what lies in the cache is executed: only a flag or a .py file names it."""
    if not config.train.compile_cache:
        return config
    print(
        f"note: {path} names a --train.compile-cache, which only the command line may; it is ignored", file=sys.stderr
    )
    return settings.replace(config, {"train.compile_cache": ""})


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
