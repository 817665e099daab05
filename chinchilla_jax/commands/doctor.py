"""What is here and what will work: one row a check, each with what to do about it."""

import argparse
import itertools
import json
import shutil
import signal
import subprocess
import sys
import textwrap

from chinchilla_jax.commands import checks, hints
from chinchilla_jax.commands.checks import Row
from chinchilla_jax.config import Config, to_dict

SECTIONS = ("train.compile_cache", "checkpoint.verify", "data.data_dir")
LOCAL_RUNS = True
CHILD = (
    "import sys; sys.path.append(sys.argv[1]); from chinchilla_jax.commands import checks; checks.serve(sys.argv[2])"
)
PATIENCE = 120  # seconds that the checks apart may take together: a driver may never answer


def options(parser: argparse.ArgumentParser) -> None:
    """The flags of `doctor` alone."""
    parser.add_argument("--deep", action="store_true", help="really train the network between two processes (10 s)")


def rows_of(names: list[str], config: Config, args) -> dict[str, Row]:
    """The rows of checks that run in a process of their own; one that it dies of is a row too, and the rest goes on."""
    rows: dict[str, Row] = {}
    told = {"config": to_dict(config), "args": {"run_dir": args.run_dir, "deep": args.deep}}
    while left := [name for name in names if name not in rows]:
        command = [sys.executable, "-c", CHILD, str(hints.ROOT), json.dumps({**told, "names": left})]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
            out, how = done.stdout, ended(done)
        except subprocess.TimeoutExpired as error:
            out, how = error.stdout or b"", f"no answer within {PATIENCE} s"
        for line in out.decode(errors="replace").splitlines():
            if line.startswith(checks.MARK):
                name, row = json.loads(line.removeprefix(checks.MARK))
                rows[name] = Row(*row)
        if culprit := next((name for name in left if name not in rows), None):
            _, status, fix = next(rest for name, *rest in checks.CHECKS if name == culprit)
            rows[culprit] = checks.failed(culprit, status, how, fix)
    return rows


def ended(done: subprocess.CompletedProcess) -> str:
    """How a process of checks ended before its time, with the last thing it said."""
    said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    reason = [line for line in said if "XLA_FLAGS" in line or "rror" in line] or said or ["without a word"]
    code = done.returncode
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"the check ended with {how}: {reason[-1][-160:]}"


def table(rows: dict[str, Row], width: int) -> list[str]:
    """The rows as lines of at most `width` characters; no package is needed to show what is missing."""
    names = max(map(len, rows))
    share = max(20, (width - names - 9) * 3 // 5)
    lines = [f"      {'check':<{names}} {'found':<{share}} what to do"]
    for name, row in rows.items():
        columns = [textwrap.wrap(row.text, share), textwrap.wrap(row.fix, max(20, width - names - 9 - share))]
        for number, (text, fix) in enumerate(itertools.zip_longest(*columns, fillvalue="")):
            head = f" {row.status:<4} {name:<{names}}" if number == 0 else " " * (names + 6)
            lines.append(f"{head} {text:<{share}} {fix}".rstrip())
    return lines


def run(config: Config, args) -> dict:
    """Every check, printed as a table; exit code 78 if one failed."""
    names = [name for name, *_ in checks.CHECKS]
    apart = rows_of([name for name in names if name in checks.APART], config, args)
    rows = {name: apart[name] if name in apart else checks.examine(name, config, args) for name in names}
    width = shutil.get_terminal_size((160, 24)).columns if sys.stdout.isatty() else 160
    print("\n".join(table(rows, width)))
    ok = all(row.status != "fail" for row in rows.values())
    return {
        "ok": ok,
        "exit_code": 0 if ok else 78,
        "checks": [{"check": name, **row._asdict()} for name, row in rows.items()],
        "next": hints.quickstart() if ok else "what the last column says",
    }
