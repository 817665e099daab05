"""Libraries that only some metrics need, by name: the extra `tasks`."""

import importlib
import importlib.util
from types import ModuleType

from chinchilla_jax.config import require


def has(name: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(name) is not None


def library(name: str) -> ModuleType:
    """A module of the extra. Raises `UserError` with the command that installs it."""
    top = name.split(".")[0]
    package = top.replace("_", "-")
    require(
        has(top),
        f"{package}, which computes this metric, is not installed; in a clone: make env EXTRA=tasks, or pip install "
        "'.[tasks]'",
    )
    return importlib.import_module(name)
