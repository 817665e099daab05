"""A run in somebody else's format: loaded, written beside its place, put there when it is whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from chinchilla_jax.config import Config, require
from chinchilla_jax.data.workspace import publish, workspace
from chinchilla_jax.interop import config_json, gguf_names, gguf_write, peft, write_huggingface
from chinchilla_jax.interop.gguf_read import File
from chinchilla_jax.interop.huggingface import Folder
from chinchilla_jax.interop.rounding import Rounding
from chinchilla_jax.model import stacks
from chinchilla_jax.model.weights import is_node, merged
from chinchilla_jax.training import origin as origins
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
    for line in report.get("load", ()):
        say(line)
    return {"step": loaded.step, "format": how.format, "dtype": how.dtype, **report}


def whole(loaded: Loaded, how: How) -> tuple[Any, Rounding | None]:
    """All parameters as plain arrays in one stack, and their loss where rounding will change it.

    Adapters are merged where that was asked for, and refused else.
    """
    nodes = any(is_node(w) for w in jax.tree.leaves(loaded.params, is_leaf=is_node))
    require(
        not nodes or how.merge,
        f"this run holds adapters: --merge writes a whole {how.format} model, --format peft the adapters alone",
    )
    params = jax.jit(lambda params: stacks.whole(merged(params)))(loaded.params)
    require("heads" not in params, "this run has a head of its own, which the format has no place for")
    return params, None if how.dtype == "float32" else Rounding(loaded, params)


def huggingface(folder: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A folder for `AutoModelForCausalLM.from_pretrained`."""
    require(how.dtype != "q8_0", "--dtype q8_0 is a type of GGUF; choose bfloat16, or --format gguf")
    folder.mkdir()
    cfg = loaded.program.config.model
    config_json.choose(cfg)  # refuses before anything is computed
    params, rounding = whole(loaded, how)
    report = write_huggingface.write(folder, run_dir, params, cfg, context(loaded), how.dtype, how.limit)
    del params
    return {**report, **(rounding.report(Folder(folder), how.dtype, say) if rounding else {})}


def gguf(path: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A file for llama.cpp."""
    cfg, origin = loaded.program.config.model, origins.read(run_dir)
    gguf_names.architecture_of(cfg)
    params, rounding = whole(loaded, how)
    tensors = list(write_huggingface.all_tensors(params, cfg, np.dtype(np.float32)))
    told = {"name": run_dir.absolute().name, **({"license": origin["license"]} if origin.get("license") else {})}
    report = gguf_write.write(path, run_dir, tensors, cfg, context(loaded), how.dtype, **told)
    del params, tensors
    return {**report, **(rounding.report(File(path), how.dtype, say) if rounding else {})}


def context(loaded: Loaded) -> int:
    """The longest text that a model is meant for."""
    return loaded.program.config.model.context or loaded.program.config.train.seq_len


def adapter(folder: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A folder for `PeftModel.from_pretrained`."""
    require(how.dtype != "q8_0", "--dtype q8_0 is a type of GGUF; choose float32 or bfloat16")
    require(not how.merge, "--merge makes a whole model, which --format peft is not; choose --format hf or gguf")
    require(
        loaded.program.config.tune.method != "off", "this run holds a whole model and no adapter; choose --format hf"
    )
    folder.mkdir()
    return peft.write(folder, run_dir, loaded, how.dtype)


FORMATS = {"hf": huggingface, "gguf": gguf, "peft": adapter}
