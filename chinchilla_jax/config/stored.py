"""config.json of a run: its settings, and the version of the program that wrote them."""

from typing import Any

from chinchilla_jax import __version__
from chinchilla_jax.config import Config, from_dict, to_dict
from chinchilla_jax.errors import UserError


def to_json(config: Config) -> dict[str, Any]:
    """What is written. Where programs are cached is not the run's to say: they are executed."""
    values = to_dict(config)
    return {"version": __version__, **values, "train": values["train"] | {"compile_cache": ""}}


def from_json(values: Any) -> Config:
    """The settings, those of which the writer knew nothing at their defaults; an older program's line for a newer's."""
    if not isinstance(values, dict):
        return from_dict(Config, values)
    version, rest = values.get("version"), {name: value for name, value in values.items() if name != "version"}
    try:
        return from_dict(Config, rest)
    except UserError as error:
        if version in (None, __version__):
            raise
        raise UserError(
            f"{error}; it was written by chinchilla_jax {version} and this is {__version__}: use that version"
        ) from error
