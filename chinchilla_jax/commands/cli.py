"""The command line, generated from the config's dataclasses.

A command module has `SECTIONS` (what it reads of the config: "train", or "train.seq_len"), `options(parser)`, and
`run(config, args) -> report`, a plain dict; its `wrote` and `next` are printed at the end, and its `exit_code`, where
there is one, is the command's. Heavy imports belong inside `run`, so that `--help` stays fast.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from chinchilla_jax.commands import config_files, hints, startup
from chinchilla_jax.commands.device_faults import explained
from chinchilla_jax.commands.flags import ALONE, parser_of
from chinchilla_jax.commands.stopping import asked_to, terminable
from chinchilla_jax.config import require
from chinchilla_jax.disk import finite, is_remote, write_json
from chinchilla_jax.errors import StorageError, UserError, one_line


def run(name: str, summary: str, module: types.ModuleType, argv: list[str]) -> int:
    """Parse, run the command, print its report; user errors become one line and an exit code."""
    debug, code = "--debug" in argv, 0
    try:
        parser = parser_of(name, summary, module)
        args = parser.parse(argv)
        _check_local(args)
        with _local_copy(args, module), _json_output() if args.json else _plain_output() as out:
            config = config_files.resolve(args)
            if _is_run(args.run_dir) and args.config and "model" not in module.SECTIONS:
                print(
                    f"note: of --config only {', '.join(module.SECTIONS)} count here; the model is the run's",
                    file=sys.stderr,
                )
            with terminable():
                join(args)
                with contextlib.nullcontext() if speaks() else _no_output():
                    report = _with_urls(module.run(config, args))
            if speaks():
                _print_end(report, args.json, out)
                code = _output_code(report, args.json, out)
    except UserError as error:
        return fail(error, error.exit_code, debug)
    except OSError as error:
        return fail(error, StorageError.exit_code, debug)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("chinchilla_jax"):
            raise
        way = hints.install(error.name or "")
        fix = f"run `{way}` and use .venv/bin/python" if hints.in_clone() else way
        fix += "" if error.name in hints.EXTRAS else ", or install the extra that has it"
        return fail(UserError(f"{sys.executable} has no package {error.name}; {fix}"), UserError.exit_code, debug)
    except BaseException as error:
        known = asked_to(error) or explained(error, name)
        if known is None:
            if others := _peers():
                traceback.print_exc()
                return fail(error, 1, False)
            raise
        if others := _peers():
            others.failed(error)
        return fail(known, known.exit_code, debug)
    code = code or report.get("exit_code", 0)
    if others := _peers():
        others.leave(code)
    return code


def _check_local(args: argparse.Namespace) -> None:
    """Refuse URLs for what can only be local."""
    for name, flag in (("out", "--out"), ("path", "PATH"), ("report", "--report")):
        url = str(getattr(args, name, None) or "")
        require(
            not is_remote(url), f"{flag} {url}: this has to be a local path; name one, and copy it from or to there"
        )


def _with_urls(value):
    """`value` with the URLs of runs on object storage in the place of their local copies."""
    mirror = sys.modules.get("chinchilla_jax.training.mirror")
    return mirror.named(value) if mirror else value


def _output_code(report: dict, as_json: bool, out: TextIO) -> int:
    """The exit code of a report that could not be written to standard output; 0 if files hold the results, or if the
    reader has gone away, as in `| head`."""
    failure = startup.lost(out)
    if failure is None or isinstance(failure, BrokenPipeError):
        return 0
    print(f"warning: standard output could not be written ({failure.strerror})", file=sys.stderr)
    return StorageError.exit_code if as_json or not report.get("wrote") else 0


@contextlib.contextmanager
def _local_copy(args: argparse.Namespace, module: types.ModuleType) -> Iterator[None]:
    """Inside, a local copy is in the place of a run directory on object storage."""
    url = args.run_dir or ""
    if not is_remote(url):
        yield
        return
    require(
        not getattr(module, "LOCAL_RUNS", False), f"--run-dir {url}: this command takes local folders only; name one"
    )
    from chinchilla_jax.training import mirror

    with mirror.standing_for(url) as standing:
        args.run_dir = str(standing.folder)
        yield


@contextlib.contextmanager
def _plain_output() -> Iterator[TextIO]:
    yield sys.stdout


@contextlib.contextmanager
def _json_output() -> Iterator[TextIO]:
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
def _no_output() -> Iterator[None]:
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
    others = _peers()
    if others:
        others.failed(error)
    if not others or not others.told:
        text = _os_error(error) if isinstance(error, OSError) else str(error)
        print(f"error: {one_line(_with_urls(text))}", file=sys.stderr)
    if others:
        others.leave(code)
    return code


def _os_error(error: OSError) -> str:
    """What failed where, without the error's number."""
    names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return ": ".join(filter(None, (names, error.strerror))) if error.strerror else str(error)


def _peers():
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


def _print_end(report: dict, as_json: bool, out: TextIO) -> None:
    if as_json:
        print(json.dumps(finite(report), default=lambda scalar: finite(scalar.item())), file=out, flush=True)
        return
    for path in report.get("wrote", ()):
        print(f"wrote {path}")
    if report.get("next"):
        print(f"next: {report['next']}")


def keep(path: Path, report: dict) -> list[str]:
    """Write figures that are printed anyway; what was written, nothing (and a warning) where it cannot be."""
    if not speaks():
        return []
    from chinchilla_jax.training import mirror

    try:
        write_json(path, report)
        mirror.deliver(path)
    except (OSError, StorageError) as error:
        cause = error.__cause__ or error
        why, name = getattr(cause, "strerror", None) or cause, mirror.named(str(path))
        print(f"warning: {name} could not be written ({why}); the figures are printed only", file=sys.stderr)
        return []
    return [str(path)]


def fresh(named: str | None, option: str) -> Path:
    """What `option` names, which is not there and can be made."""
    require(bool(named), f"name what to write with {option}")
    from chinchilla_jax.training import mirror

    path = Path(named)
    require(not mirror.exists(path), f"{option} {path} is there already, and nothing is overwritten; name another")
    writable(path, option)
    return path


@contextlib.contextmanager
def whole(out: Path) -> Iterator[None]:
    """Inside, the folder `out`, which was not there, is written; where that fails or is stopped, it goes."""
    try:
        yield
    except BaseException:
        if speaks():
            shutil.rmtree(out, ignore_errors=True)
        raise


def writable(folder: Path, option: str) -> None:
    """A `StorageError` before the work, where its result could not be put into `folder`; nothing is made."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise StorageError(f"{option} {folder}: {place} cannot be written; choose another folder")
    if mirror := sys.modules.get("chinchilla_jax.training.mirror"):  # else no folder stands for object storage
        mirror.check_writable(folder)


def _is_run(run_dir: str | None) -> bool:
    """Whether a folder has the config of a run."""
    return bool(run_dir) and Path(run_dir, "config.json").exists()
