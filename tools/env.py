"""Build the environment `.venv` from requirements.txt; run by `make env`, standard library only.

The stamp is written last, so an interrupted install is never taken for a complete one, and a changed
requirements.txt (newer than the stamp) has it built anew.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV, PINS = ROOT / ".venv", ROOT / "requirements.txt"


def say(text: str) -> None:
    """One line of progress."""
    print(f"environment: {text}", flush=True)


def fail(text: str) -> int:
    """The last line of a failure, and its exit code."""
    print(f"error: {text}", file=sys.stderr)
    return 78


def expected() -> int:
    """How many pins of requirements.txt hold for this Python."""
    old = sys.version_info < (3, 12)
    lines = [line for line in PINS.read_text().splitlines() if "==" in line and not line.startswith("#")]
    return sum(("< " in line) == old if ";" in line else True for line in lines)


def install(python: Path, log) -> int:
    """pip's exit code; its whole output goes to `log`, every tenth package and every phase to the terminal."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    pip = subprocess.Popen(
        [*command, "-r", PINS], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    count, total = 0, expected()
    for line in pip.stdout:
        log.write(line)
        if line.startswith(("Collecting ", "Processing ")):  # from an index, from a folder
            count += 1
            if count % 10 == 1 or count == total:
                name = re.split(r"[=<>; ]|-\d", Path(line.split()[1]).name)[0]
                say(f"{count:>3} of {total} packages, at {name}")
        elif line.startswith("Installing collected"):
            say(f"all downloaded, installing {total} packages")
    return pip.wait()


def main(stamps: list[str]) -> int:
    """Build, check, stamp; `stamps` are further names under which `make` knows this environment."""
    began = time.monotonic()
    version = ".".join(map(str, sys.version_info[:3]))
    if VENV.exists():
        say("an older or unfinished .venv is replaced")
        shutil.rmtree(VENV)
    say(f"Python {version} at {sys.executable} -> .venv")
    made = subprocess.run([sys.executable, "-m", "venv", VENV], stdin=subprocess.DEVNULL)
    if made.returncode:
        print(
            "error: venv failed (see above); free some disk space or choose another: make env PYTHON=...",
            file=sys.stderr,
        )
        return 78
    python = VENV / "bin" / "python"
    with tempfile.TemporaryFile("w+") as log:
        code = install(python, log)
        if code:
            log.seek(0)
            sys.stderr.write("".join(log.readlines()[-15:]))
            return fail(f"pip ended with {code} (see above); mend that, then type the same again")
    check = "import jax; print('jax', jax.__version__)"
    seen = subprocess.run([python, "-c", check], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if seen.returncode:
        sys.stderr.write(seen.stderr)
        print(
            "error: the installed jax does not import (see above); is this CPU or system too old for it?",
            file=sys.stderr,
        )
        return 78
    for stamp in {"installed", *(Path(s).name for s in stamps)}:
        (VENV / stamp).touch()
    say(f"ready in {time.monotonic() - began:.0f} s: Python {version}, {seen.stdout.strip()}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("error: interrupted; the unfinished .venv is built anew next time")
