"""From a fresh clone to an environment: which Python is taken, what is pinned, what `make` would do."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FINDER = ROOT / "tools/find_python.sh"
PINS = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def fake(folder: Path, name: str, version: str, flaw: str = "ok", code: int = 0) -> Path:
    """A program that answers the finder's probe like a Python, or fails like a dead shim."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n[ {code} = 0 ] || exit {code}\necho '{version} {flaw} {path}'\n")
    path.chmod(0o755)
    return path


def find(tmp_path: Path, *arguments: str, path: str = "bin") -> subprocess.CompletedProcess:
    """Run the finder where `tmp_path` is the home, the root of the file system and the only PATH."""
    environment = {"HOME": str(tmp_path), "PATH": str(tmp_path / path)}
    command = ["/bin/sh", str(FINDER), "--root", str(tmp_path), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def found(tmp_path: Path, *arguments: str) -> Path:
    result = find(tmp_path, *arguments)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return Path(result.stdout.strip())


def refusal(tmp_path: Path, *arguments: str) -> str:
    """The one line of a refusal."""
    result = find(tmp_path, *arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (78, "", 1)
    assert result.stderr.startswith("error: ")
    return result.stderr


def test_newer_line_is_preferred(tmp_path):
    fake(tmp_path / "bin", "python3", "3.11")
    fake(tmp_path / "bin", "python3.13", "3.13")
    best = fake(tmp_path / "bin", "python3.12", "3.12")
    assert found(tmp_path) == best
    best.unlink()
    assert found(tmp_path).name == "python3.13"
    (tmp_path / "bin/python3.13").unlink()
    assert found(tmp_path).name == "python3"


@pytest.mark.parametrize(
    "folder",
    [
        ".pyenv/versions/3.12.1/bin",
        ".local/share/uv/python/cpython-3.12/bin",
        "usr/local/bin",
        "opt/conda/bin",
        "miniconda3/envs/with space/bin",
        "Library/Frameworks/Python.framework/Versions/3.12/bin",
    ],
)
def test_newer_line_off_the_path_is_found(tmp_path, folder):
    fake(tmp_path / "bin", "python3", "3.11")
    good = fake(tmp_path / folder, "python3.12", "3.12")
    assert found(tmp_path) == good


def test_programs_that_do_not_run_are_passed_over(tmp_path):
    fake(tmp_path / "bin", "python3.12", "3.12", code=127)  # as pyenv's shims do
    (tmp_path / "bin/python3.13").mkdir()
    (tmp_path / "bin/python").symlink_to(tmp_path / "gone")
    good = fake(tmp_path / "bin", "python3.11", "3.11")
    assert found(tmp_path) == good


def test_python_without_venv_gives_way_or_is_explained(tmp_path):
    fake(tmp_path / "bin", "python3.12", "3.12", flaw="ensurepip")
    assert "apt install python3.12-venv" in refusal(tmp_path)
    good = fake(tmp_path / "usr/bin", "python3.11", "3.11")
    assert found(tmp_path) == good


@pytest.mark.parametrize("flaw, mend", [("free-threaded", "standard build"), ("32-bit", "64-bit"), ("lzma", "rebuild")])
def test_python_that_cannot_work_is_explained(tmp_path, flaw, mend):
    fake(tmp_path / "bin", "python3.13", "3.13", flaw=flaw)
    assert mend in refusal(tmp_path)


def test_nothing_suitable(tmp_path):
    assert "no Python 3.11, 3.12 or 3.13 found;" in refusal(tmp_path)
    fake(tmp_path / "bin", "python3", "3.9")
    fake(tmp_path / "bin", "python", "3.9")
    fake(tmp_path / "usr/bin", "python3", "3.14")
    assert "(only 3.9 3.14)" in refusal(tmp_path)


def test_chosen_python(tmp_path):
    fake(tmp_path / "bin", "python3.12", "3.12", code=127)
    mine = fake(tmp_path / "mine", "python", "3.11")
    fake(tmp_path / "usr/bin", "python3", "3.12")
    assert found(tmp_path, "--use", str(mine)) == mine
    assert found(tmp_path, "--use", "3.12") == tmp_path / "usr/bin/python3"
    assert found(tmp_path, "--use", "python3.12") == tmp_path / "usr/bin/python3"
    assert "no Python 3.13 found" in refusal(tmp_path, "--use", "3.13")
    assert "not on the PATH" in refusal(tmp_path, "--use", "pypy3")
    assert "does not run" in refusal(tmp_path, "--use", "/no/such/python")
    assert "is Python 3.10" in refusal(tmp_path, "--use", str(fake(tmp_path / "old", "python3", "3.10")))
    assert "is Python 3.14" in refusal(tmp_path, "--use", str(fake(tmp_path / "new", "python3", "3.14")))


def test_real_python_is_found():
    result = subprocess.run(["sh", FINDER], capture_output=True, text=True, check=True)
    assert os.access(result.stdout.strip(), os.X_OK)


def pinned(python: str) -> dict[str, str]:
    """Package -> version that the file gives to a Python."""
    lines = [Requirement(line) for line in PINS]
    lines = [r for r in lines if r.marker is None or r.marker.evaluate({"python_version": python})]
    names = [canonicalize_name(r.name) for r in lines]
    assert len(names) == len(set(names)), "two pins of a package hold for one Python"
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in lines}


@pytest.mark.parametrize("line", PINS)
def test_pins_are_exact(line):
    [only] = Requirement(line).specifier
    assert only.operator == "==" and "*" not in only.version
    assert canonicalize_name(Requirement(line).name) not in {"tensorflow", "torch", "tensorflow-cpu"}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_pins_satisfy_the_declared_ranges(python):
    pins = pinned(python)
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


def test_there_are_two_lines_of_jax():
    assert pinned("3.11")["jax"].startswith("0.10.") and pinned("3.12")["jax"].startswith("0.12.")
    assert pinned("3.12") == pinned("3.13")
    for python in ("3.11", "3.12"):
        assert pinned(python)["jax"] == pinned(python)["jaxlib"]
        assert python in SpecifierSet(PROJECT["requires-python"])


def test_extras_are_the_documented_ones():
    assert set(PROJECT["optional-dependencies"]) == {"cuda", "tpu", "parity", "eval", "serve", "beam", "wandb", "dev"}


def make(folder: Path, *arguments: str) -> str:
    """What `make` says, also when these tests run below another make."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def planned(folder: Path, *arguments: str) -> str:
    """What `make` would do in a clone, by its dry run."""
    return make(folder, "-n", *arguments)


@pytest.fixture
def clone(tmp_path):
    """A clone with an environment that counts as complete."""
    for name in ("Makefile", "requirements.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    fake(tmp_path / ".venv/bin", "python", "3.12")
    (tmp_path / ".venv/installed").touch()
    return tmp_path


def test_complete_environment_is_left_alone(clone):
    assert "env.py" not in planned(clone, "env")
    assert "env.py" not in planned(clone, "quickstart")


def test_environment_is_built_anew_when_it_must(clone):
    assert "env.py installed-3.13" in planned(clone, "env", "PYTHON=3.13")
    os.utime(clone / "requirements.txt", (2**32, 2**32))
    assert "env.py" in planned(clone, "test")
    os.utime(clone / "requirements.txt", (1, 1))
    (clone / ".venv/bin/python").unlink()  # its interpreter has left the machine
    assert "env.py" in planned(clone, "env")


def test_interrupted_install_is_not_complete(clone):
    (clone / ".venv/installed").unlink()
    assert "env.py" in planned(clone, "env")


def test_quickstart_is_the_documented_journey(clone):
    lines = planned(clone, "quickstart", "RUN=runs/x", "PRETRAIN=--train.steps 5").splitlines()
    commands = [line.split("chinchilla_jax ")[1].split()[0] for line in lines]
    assert commands == ["prepare", "pretrain", "evaluate", "generate", "report"]
    assert all("--run-dir runs/x" in line for line in lines), "one folder is handed along"
    assert all("--config configs/quickstart.py" in line for line in lines[:2]), "the run directory remembers it then"
    assert lines[1].endswith("--train.steps 5")


def test_help_lists_every_target(clone):
    said = make(clone)
    for target in ("env", "test", "quickstart", "lint", "clean"):
        assert f"make {target} " in said
