"""A run in somebody else's format: loaded, written beside its place, put there when it is whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from chinchilla_jax.config import Config, require
from chinchilla_jax.data.workspace import publish, workspace
from chinchilla_jax.interop import write_huggingface
from chinchilla_jax.interop.rounding import measure
from chinchilla_jax.model import stacks
from chinchilla_jax.model.weights import is_node, merged
from chinchilla_jax.training.load import Loaded, load

Say = Callable[[str], None]


class How(NamedTuple):
    """What is asked for: format, type of the weights, bytes of a shard, and whether adapters are merged."""

    format: str
    dtype: str
    limit: int
    merge: bool


def export(config: Config, run_dir: Path, out: Path, how: How, say: Say) -> dict[str, Any]:
    """Write `out`; the report."""
    loaded = load(config, str(run_dir), whole_mesh=False)
    for note in loaded.notes:
        say(f"warning: {note}")
    with workspace(out, "--out") as place, jax.set_mesh(loaded.program.mesh):
        report = FORMATS[how.format](place / "made", run_dir, loaded, how, say)
        publish(place / "made", out)
    for note in report.get("notes", ()):
        say(f"warning: {note}")
    return {"step": loaded.step, "format": how.format, "dtype": how.dtype, **report}


def whole(loaded: Loaded, how: How) -> Any:
    """All parameters as plain arrays in one stack of layers; adapters only where merging was asked for."""
    nodes = any(is_node(w) for w in jax.tree.leaves(loaded.params, is_leaf=is_node))
    require(
        not nodes or how.merge,
        f"this run holds adapters: --merge writes a whole {how.format} model, --format peft the adapters alone",
    )
    params = jax.jit(lambda params: stacks.whole(merged(params)))(loaded.params)
    require("heads" not in params, "this run has a head of its own, which the format has no place for")
    return params


def huggingface(folder: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A folder for `AutoModelForCausalLM.from_pretrained`."""
    folder.mkdir()
    program, params = loaded.program, whole(loaded, how)
    cfg = program.config.model
    context = cfg.context or program.config.train.seq_len
    report = write_huggingface.write(folder, run_dir, params, cfg, context, how.dtype, how.limit)
    return {**report, **measure(loaded, params, program.config.data.store, how.dtype, say)}


FORMATS = {"hf": huggingface}
