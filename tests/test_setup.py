"""From a fresh clone to an environment: which Python is taken, what is pinned, what `make` would do, what is packed."""

import ast
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "requirements.txt").read_text()
PINS = [Requirement(line.removesuffix("\\")) for line in TEXT.splitlines() if "==" in line and line[0] not in "# "]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Variables of a machine with no Python but those below `tmp_path`."""
    tools = tmp_path / "tools"
    if not tools.exists():
        tools.mkdir()
        for name in ("sh", "dirname", "date", "ls", "cat", "grep", "sed", "sort", "head", "tail", "cut", "mkdir", "rm",
                     "touch", "readlink"):  # fmt: skip
            (tools / name).symlink_to(next(p for p in (Path("/usr/bin", name), Path("/bin", name)) if p.exists()))
    return {"HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{tools}", **more}


def fake(path: Path, version: str = "3.12", works: bool = True) -> Path:
    """A program that takes an environment's first steps like a Python, and stops there; or a dead shim."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"""#!/bin/sh
[ {works:d} = 1 ] || exit 127
case "$*" in
    *_base_executable*) echo {path} ;;
    --version) echo Python {version} ;;
    *venv*) echo "asked for $*"; exit 3 ;;
esac
""")
    path.chmod(0o755)
    return path


def make_env(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess:
    """`tools/env.sh` in a copy of what it needs, which ends where it asks the fake Python for venv."""
    clone = tmp_path / "clone"
    (clone / "tools").mkdir(parents=True, exist_ok=True)
    for name in ("tools/env.sh", "requirements.txt", "pyproject.toml"):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    command = ["/bin/sh", "tools/env.sh"]
    return subprocess.run(
        command, cwd=clone, env=environment(tmp_path, **variables), capture_output=True, text=True, timeout=60
    )


# Real Pythons of /usr/bin and /usr/local/bin are looked for last, so a fake one always comes before them.
def taken(tmp_path: Path, **variables: str) -> str:
    done = make_env(tmp_path, **variables)
    assert "asked for -m venv" in done.stdout, done.stderr
    return done.stdout.split(" at ")[1].split(" -> ")[0]


@pytest.mark.parametrize(
    "place",
    ["bin/python3.12", ".pyenv/versions/3.12.1/bin/python", ".local/share/uv/python/cpython-3.12.4/bin/python3"],
)
def test_python_is_found_off_the_path_too_and_dead_shims_are_passed_over(tmp_path, place):
    fake(tmp_path / "bin/python3.12", works=False)
    fake(tmp_path / "bin/python3.13", version="3.13")
    good = fake(tmp_path / place)
    assert taken(tmp_path) == str(good)
    assert taken(tmp_path, PYTHON="3.13") == str(tmp_path / "bin/python3.13")
    assert taken(tmp_path, PYTHON=str(good)) == str(good)


def test_what_cannot_be_taken_is_one_line(tmp_path):
    fake(tmp_path / "bin/python3.9", works=False)
    for wanted in ("python3.9", "/no/such/python", "pypy3", "2.7"):
        done = make_env(tmp_path, PYTHON=wanted)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1) and "3.11" in done.stderr


def test_an_environment_of_somebody_else_is_left_alone(tmp_path):
    fake(tmp_path / "bin/python3.12")
    mine = tmp_path / "clone/.venv/bin/python"
    fake(mine)
    before = mine.read_bytes()
    done = make_env(tmp_path)
    assert done.returncode == 78 and "make env did not make it" in done.stderr
    assert make_env(tmp_path, PYTHON="3.12").returncode == 78 and mine.read_bytes() == before


def test_a_linked_environment_is_made_where_the_link_points(tmp_path):
    fake(tmp_path / "bin/python3.12")
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone/.venv").symlink_to(tmp_path / "disk/venv")
    assert f"--prompt chinchilla_jax {tmp_path / 'disk/venv'}" in make_env(tmp_path).stdout
    assert (tmp_path / "clone/.venv").is_symlink() and (tmp_path / "disk/venv").is_dir()


def pinned(python: str, system: str = "linux") -> dict[str, str]:
    """Package -> version that the file gives to a Python."""
    where = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": system}
    chosen = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(where)]
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert len(names) == len(set(names)), "two pins of a package hold for one Python"
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in chosen}


def test_pins_are_exact_and_hashed_and_name_no_host():
    assert all(len(pin.specifier) == 1 and "*" not in str(pin.specifier) for pin in PINS)
    for line, following in zip(TEXT.splitlines(), TEXT.splitlines()[1:]):
        if "==" in line and line[0] not in "# ":
            assert line.endswith("\\") and following.strip().startswith("--hash=sha256:"), line
    assert "://" not in TEXT and not {"tensorflow", "torch", "tensorflow-cpu"} & set(pinned("3.12"))


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_pins_satisfy_the_declared_ranges(python, system):
    pins = pinned(python, system)
    for text in PROJECT["dependencies"] + EXTRAS["train"] + EXTRAS["dev"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


def test_there_are_two_lines_of_jax():
    assert pinned("3.11")["jax"].startswith("0.10.") and pinned("3.12")["jax"].startswith("0.12.")
    assert pinned("3.12") == pinned("3.13")
    for python in ("3.11", "3.12"):
        assert pinned(python)["jax"] == pinned(python)["jaxlib"]
        assert python in SpecifierSet(PROJECT["requires-python"])


def test_extras_are_the_documented_ones():
    assert set(EXTRAS) == {
        "train",
        "cuda",
        "tpu",
        "beam",
        "corpora",
        "docs",
        "serve",
        "lm-eval",
        "tasks",
        "wandb",
        "parity",
        "dev",
    }


def test_what_the_package_imports_is_declared():
    names = {Requirement(text).name.lower().replace("-", "_") for texts in EXTRAS.values() for text in texts}
    names |= {Requirement(text).name for text in PROJECT["dependencies"]}
    modules = {"orbax": "orbax_checkpoint", "tensorboardx": "tensorboardx", "yaml": "pyyaml"}
    for path in (ROOT / "chinchilla_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module] if isinstance(node, ast.ImportFrom) else []
            for top in {name.partition(".")[0].lower() for name in found} - sys.stdlib_module_names:
                assert modules.get(top, top) in names, f"{path}: {top} is in no list of pyproject.toml"


def make(folder: Path, *arguments: str) -> str:
    """What `make` says, also when these tests run below another make."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True).stdout


def planned(folder: Path, *arguments: str) -> str:
    """What `make` would do in a clone, by its dry run."""
    return make(folder, "-n", *arguments)


@pytest.fixture
def clone(tmp_path):
    """A clone with an environment that counts as complete."""
    for name in ("Makefile", "requirements.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    fake(tmp_path / ".venv/bin/python")
    (tmp_path / ".venv/installed").touch()
    return tmp_path


def test_complete_environment_is_left_alone(clone):
    assert "env.sh" not in planned(clone, "env")
    assert "env.sh" not in planned(clone, "quickstart")


def test_environment_is_seen_to_when_it_must(clone):
    assert 'PYTHON="3.13" EXTRA="" sh tools/env.sh' in planned(clone, "env", "PYTHON=3.13")
    assert 'PYTHON="" EXTRA="cuda" sh tools/env.sh' in planned(clone, "env", "EXTRA=cuda")
    os.utime(clone / "requirements.txt", (2**32, 2**32))
    assert "env.sh" in planned(clone, "test")
    os.utime(clone / "requirements.txt", (1, 1))
    (clone / ".venv/bin/python").unlink()  # its interpreter has left the machine
    assert "env.sh" in planned(clone, "env")


def test_interrupted_install_is_not_complete(clone):
    (clone / ".venv/installed").unlink()
    assert "env.sh" in planned(clone, "env")


def test_clean_removes_only_an_environment_of_ours(clone):
    for name in ("chinchilla_jax", "tests", "tools"):
        (clone / name).mkdir()
    make(clone, "clean")
    assert not (clone / ".venv").exists()
    fake(clone / ".venv/bin/python")
    make(clone, "clean")
    assert (clone / ".venv/bin/python").exists()


def test_quickstart_is_the_documented_journey(clone):
    lines = planned(clone, "quickstart", "RUN=runs/x", "PRETRAIN=--train.steps 5").splitlines()
    commands = [line.split("chinchilla_jax ")[1].split()[0] for line in lines]
    assert commands == ["prepare", "pretrain", "evaluate", "generate", "report"]
    assert all("--run-dir runs/x" in line for line in lines), "one folder is handed along"
    assert all("--config quickstart" in line for line in lines[:2]), "the run directory remembers it then"
    assert lines[1].endswith("--train.steps 5")


def test_help_lists_every_target(clone):
    said = make(clone)
    for target in ("env", "test", "quickstart", "lint", "clean"):
        assert f"make {target} " in said


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Wheel and source distribution of what git has here, built without an index."""
    folder = tmp_path_factory.mktemp("packed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    (folder / "source/configs").symlink_to("chinchilla_jax/configs")
    build = "from setuptools import build_meta as b; print(b.build_wheel('..')); print(b.build_sdist('..'))"
    command = [sys.executable, "-c", build]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz")), listed.stdout


def test_the_source_distribution_is_complete(packed):
    _, archive, listed = packed
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {name for name in listed.split("\0") if name and name != "configs"}
    assert {name for name in wanted - names if (ROOT / name).is_file()} == set()
    assert "configs/quickstart.py" in names


USE = """
import json, pathlib, sys
sys.path[:] = [path for path in sys.path if path] + [sys.argv.pop(1)]
from chinchilla_jax import __main__ as program
from chinchilla_jax.commands import checks, cli, config_files, hints
from chinchilla_jax.scaling import published
assert not hints.in_clone() and pathlib.Path(cli.__file__).is_relative_to(sys.path[-1])
config = config_files.load(pathlib.Path("quickstart"))
print(json.dumps([config.data.store, checks.pins(), hints.install(), hints.quickstart()]))
"""


def test_the_wheel_works_from_any_folder(packed, tmp_path):
    """Configs and tables travel in it, and no advice speaks of a clone's `make`."""
    wheel, _, listed = packed
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    mine = [name for name in listed.split("\0") if name.startswith("chinchilla_jax/")]
    assert all((tmp_path / "site" / name).is_file() for name in mine), "page, tables and configs travel"
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-c", USE, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    store, pins, install, quickstart = json.loads(done.stdout)
    assert store == "data/quickstart" and pins == {} and "make" not in install + quickstart
    assert (tmp_path / "site/chinchilla_jax/scaling/data").is_dir()
    [metadata] = (tmp_path / "site").glob("*.dist-info/METADATA")
    plain = [line for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist") and ";" not in line]
    assert [line.split()[1].split(">")[0] for line in plain] == ["numpy", "scipy"]
