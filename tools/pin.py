"""Write requirements.txt: the exact versions that pip resolves today for pyproject's dependencies and its dev extra.

    make pins        # or: python tools/pin.py; needs a Python 3.11, 3.12 and 3.13 on the machine

JAX 0.11 and later need Python 3.12, hence two lines of pins. 3.12 and 3.13 must agree, or this says where they do not.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# What is tested, exactly: pyproject.toml's dependencies with the dev extra, and everything that they need.
# JAX 0.11 and later need Python 3.12, so there are two lines of pins. No TensorFlow, no PyTorch.
# Regenerate with: make pins
"""


def wanted() -> list[str]:
    """The requirements of pyproject.toml, those of the dev extra included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + project["optional-dependencies"]["dev"]


def resolve(version: str, requirements: list[str]) -> dict[str, str]:
    """Package -> version that pip would install into an empty environment of Python `version`."""
    finder = ["sh", str(ROOT / "tools/find_python.sh"), "--use", version]
    python = subprocess.run(finder, check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        report, pip = Path(folder, "report.json"), Path(folder, "venv/bin/python")
        subprocess.run([python, "-m", "venv", f"{folder}/venv"], check=True)
        install = ["-m", "pip", "install", "-qq", "--dry-run", "--report", str(report), *requirements]
        subprocess.run([pip, *install], check=True)
        found = [package["metadata"] for package in json.loads(report.read_text())["install"]]
    return {metadata["name"]: metadata["version"] for metadata in found}


def merge(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Lines of requirements.txt: one where both agree, one with a marker for each where they do not."""
    lines = []
    for name in sorted(old.keys() | new.keys(), key=str.lower):
        if old.get(name) == new.get(name):
            lines.append(f"{name}=={old[name]}")
            continue
        for pins, marker in ((old, '< "3.12"'), (new, '>= "3.12"')):
            if name in pins:
                lines.append(f"{name}=={pins[name]} ; python_version {marker}")
    return lines


def main() -> int:
    """Resolve for each Python and write the file."""
    pins = {}
    for version in ("3.11", "3.12", "3.13"):
        print(f"resolving for Python {version} ...", flush=True)
        pins[version] = resolve(version, wanted())
    if apart := sorted(set(pins["3.12"].items()) ^ set(pins["3.13"].items())):
        print(f"error: Python 3.12 and 3.13 resolve apart; narrow pyproject.toml until they agree: {apart}")
        return 78
    lines = merge(pins["3.11"], pins["3.12"])
    (ROOT / "requirements.txt").write_text(HEADER + "\n".join(lines) + "\n")
    print(f"wrote requirements.txt: {len(lines)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
