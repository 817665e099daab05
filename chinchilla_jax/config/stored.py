"""config.json of a run: its settings, and the version of the program that wrote them."""

from typing import Any

from chinchilla_jax import __version__
from chinchilla_jax.config import Config, from_dict, to_dict
from chinchilla_jax.errors import UserError

# What an attack did before --adversarial.unit, where its config left it to the method.
OLD_ROWS, OLD_LOSS = {"noise": 1.0, "softmax_margin": 1.0}, {"fgm": "ce"}
OLD_INIT = {"noise": "uniform"}


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
        return from_dict(Config, without_idle({**rest, **attacked(rest.get("adversarial"))}))
    except UserError as error:
        if version in (None, __version__):
            raise
        raise UserError(
            f"{error}; it was written by chinchilla_jax {version} and this is {__version__}: use that version"
        ) from error


# Settings that did nothing without another, and were not refused then: the setting that they go with, where it is off.
IDLE = (
    ("model", "rope_scaling", ("none",), ("rope_factor",)),
    ("model", "positions", ("relative",), ("rope_scaling", "rope_factor")),
    ("optimizer", "schedule", ("cosine", "constant"), ("decay_fraction",)),
    ("adversarial", "method", ("off",), ("radius", "delayed")),
    ("corruption", "share", (0.0,), ("copies", "weight")),
    ("sparsity", "method", ("off",), ("target", "pattern", "strength")),
)


def without_idle(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, which say everything, without those of IDLE, which are refused of a user."""
    found = dict(values)
    for section, needs, off, names in IDLE:
        old = found.get(section)
        if isinstance(old, dict) and old.get(needs) in off:
            found[section] = {name: value for name, value in old.items() if name not in names}
    return found


def attacked(old: Any) -> dict[str, Any]:
    """The attack of a run that was written before radii had a unit, said as it is said now; nothing of other runs."""
    if not isinstance(old, dict) or "unit" in old or "special" not in old:
        return {}
    method = old.get("method", "off")
    if method == "off":
        return {"adversarial": {}}
    made = {**old, "unit": "table" if method != "softmax_margin" else "token"}
    made["fraction"] = old.get("fraction") or OLD_ROWS.get(method, 0.125)
    for name, known in (("loss", OLD_LOSS), ("init", OLD_INIT)):
        made[name] = known.get(method, "auto") if old.get(name, "auto") == "auto" else old[name]
    if method != "smart":
        made["proximity"] = None
    return {"adversarial": made}
