"""The documentation strings of the Python packages on this machine."""

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from chinchilla_jax.data.builders.base import TextBuilder

SHORTEST = 40
SURROGATE = re.compile("[\ud800-\udfff]")
LEFT_OUT = {"test", "tests", "idlelib", "site-packages", "__pycache__", "_vendor"}


class Docstrings(TextBuilder):
    """Docstrings of the standard library and of site-packages, a document a module; nothing to download.

    About 18 MB of technical English in this project's environment; it differs from one environment to the next.
    """

    LICENCE = "those of the packages on this machine (PSF, BSD, Apache-2.0, MIT and others)"
    HOMEPAGE = "https://docs.python.org/3/library/"

    def splits(self, raw: Path) -> dict[str, Iterator[tuple[str, str]]]:
        """Nothing is held out here; `prepare` splits by document."""
        return {"train": documents([Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib")])}


def documents(roots: list[Path]) -> Iterator[tuple[str, str]]:
    """(module, docstrings) below `roots`, no docstring twice."""
    seen: set[str] = set()
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            inner = path.relative_to(root)
            if LEFT_OUT.isdisjoint(inner.parts):
                texts = [text for text in docstrings(path) if len(text) >= SHORTEST and text not in seen]
                seen.update(texts)
                if texts:
                    yield ".".join(inner.with_suffix("").parts), "\n\n\n".join(texts) + "\n"


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and functions; none of a file that this Python cannot parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and not SURROGATE.search(text):
                yield text
