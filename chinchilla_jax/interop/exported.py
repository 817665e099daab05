"""A run in somebody else's format: loaded, written beside its place, put there when it is whole."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import Config, TuneConfig, require
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.data.workspace import publish, workspace
from chinchilla_jax.interop import config_json, gguf_names, gguf_write, heads, peft, write_huggingface
from chinchilla_jax.interop.gguf_read import File
from chinchilla_jax.interop.huggingface import Folder
from chinchilla_jax.interop.rounding import Rounding
from chinchilla_jax.model import stacks
from chinchilla_jax.model.weights import is_node, merged
from chinchilla_jax.optim import slicing, sparsefile
from chinchilla_jax.optim.sparsity import filled_warning, filled_zeros
from chinchilla_jax.training import origin as origins
from chinchilla_jax.training import params_only, resume
from chinchilla_jax.training.load import Loaded, load
from chinchilla_jax.training.restore import named_leaves

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
    if how.format not in OWN:
        heads.causal(loaded.program.config.task.source)
    with workspace(out, "--out") as place, jax.set_mesh(loaded.program.mesh):
        report = FORMATS[how.format](place / "made", run_dir, loaded, how, say)
        publish(place / "made", out)
    for note in report.get("notes", ()):
        say(f"warning: {note}")
    for line in report.get("load", ()):
        say(line)
    return {"step": loaded.step, "format": how.format, "dtype": how.dtype, **report}


def whole(loaded: Loaded, how: How, say: Say) -> tuple[Any, Rounding | None]:
    """All parameters as plain arrays in one stack, a head among them, and their loss where rounding will change it.

    Adapters are merged where that was asked for, and refused else; `say` is told of zeros that this fills.
    """
    nodes = any(is_node(w) for w in jax.tree.leaves(loaded.params, is_leaf=is_node))
    require(
        not nodes or how.merge,
        f"this run holds adapters: --merge writes a whole {how.format} model, --format peft the adapters alone",
    )
    params = jax.jit(lambda params: stacks.whole(merged(params)))(loaded.params)
    for line in filled_warning(filled_zeros(loaded.params, params) if nodes else 0):
        say(f"warning: {line}")
    require(
        how.format == "hf" or "heads" not in params,
        f"this run has a head of its own, which --format {how.format} has no place for; --format hf has",
    )
    return params, None if how.dtype == "float32" or "heads" in params else Rounding(loaded, params)


def huggingface(folder: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A folder for `AutoModelForCausalLM.from_pretrained`."""
    require(how.dtype != "q8_0", "--dtype q8_0 is a type of GGUF; choose bfloat16, or --format gguf")
    folder.mkdir()
    config_json.choose(loaded.program.config.model, head=head(loaded))  # refuses before anything is computed
    params, rounding = whole(loaded, how, say)
    made = write_huggingface.Model(params, loaded.program.config, head(loaded))
    report = write_huggingface.write(folder, run_dir, made, how.dtype, how.limit)
    if made.head and how.dtype != "float32":
        report["notes"].append(f"what {how.dtype} does to the scores was not measured; import it and evaluate it")
    del params, made
    return {**report, **(rounding.report(Folder(folder), how.dtype, say) if rounding else {})}


def gguf(path: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A file for llama.cpp."""
    cfg, origin = loaded.program.config.model, origins.read(run_dir)
    gguf_names.architecture_of(cfg)
    params, rounding = whole(loaded, how, say)
    tensors = list(write_huggingface.all_tensors(params, cfg, np.dtype(np.float32)))
    told = {"name": run_dir.absolute().name, **({"license": origin["license"]} if origin.get("license") else {})}
    report = gguf_write.write(path, run_dir, tensors, cfg, loaded.program.config.context, how.dtype, **told)
    del params, tensors
    return {**report, **(rounding.report(File(path), how.dtype, say) if rounding else {})}


def head(loaded: Loaded) -> str:
    """Our name of the run's head; empty where it has none."""
    return heads.of_run(getattr(loaded.program.recipe, "heads", {}))


def adapter(folder: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A folder for `PeftModel.from_pretrained`."""
    require(how.dtype != "q8_0", "--dtype q8_0 is a type of GGUF; choose float32 or bfloat16")
    require(not how.merge, "--merge makes a whole model, which --format peft is not; choose --format hf or gguf")
    require(
        loaded.program.config.tune.method != "off", "this run holds a whole model and no adapter; choose --format hf"
    )
    folder.mkdir()
    return peft.write(folder, run_dir, loaded, how.dtype)


def sparse(folder: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A run directory whose zeros take no room, for evaluate, generate and whatever else loads a run."""
    leaves = arrays(loaded, how, say)
    folder.mkdir()
    config, tokenizer = alone(run_dir), open_tokenizer(run_dir).sha256
    resume.write_run(folder, config, run_dir)
    facts = {"step": loaded.step, "meta": resume.facts(config, loaded.program.config.model.dtype, None, tokenizer)}
    sparsefile.write(folder / sparsefile.FILE, leaves, facts)
    origins.inherit(folder, run_dir, loaded.facts)
    return sizes(leaves, (folder / sparsefile.FILE).stat().st_size)


def cut(folder: Path, run_dir: Path, loaded: Loaded, how: How, say: Say) -> dict[str, Any]:
    """A run directory of a smaller dense model, without what is dead."""
    leaves = arrays(loaded, how, say)
    made, model = slicing.sliced(leaves, loaded.program.config.model)
    own = alone(run_dir)
    shape = {name: getattr(model, name) for name in ("d_ff", "heads", "kv_heads", "preset")}
    config = dataclasses.replace(own, model=dataclasses.replace(own.model, **shape))
    written = {name: jnp.asarray(leaf) for name, leaf in made.items()}
    dtype = loaded.program.config.model.dtype
    params_only.write(folder, config, run_dir, params_only.deferred(written), dtype=dtype, step=loaded.step)
    origins.inherit(folder, run_dir, loaded.facts)
    say(f"{loaded.program.config.model.heads} heads -> {model.heads}, {own.model.d_ff} hidden units -> {model.d_ff}")
    return sizes(leaves, sum(leaf.nbytes for leaf in made.values()))


def arrays(loaded: Loaded, how: How, say: Say) -> dict[str, np.ndarray]:
    """All parameters by path, in host memory."""
    require(how.dtype == "float32", f"--format {how.format} keeps the run's float32 bit for bit; leave out --dtype")
    return {name: np.asarray(leaf) for name, leaf in named_leaves(whole(loaded, how, say)[0]).items()}


def alone(run_dir: Path) -> Config:
    """The settings of a run as those of a model without an average or adapters beside it."""
    own = resume.own_config(run_dir)
    return dataclasses.replace(own, optimizer=dataclasses.replace(own.optimizer, ema_decay=0.0), tune=TuneConfig())


def sizes(leaves: dict[str, np.ndarray], stored: int) -> dict[str, int]:
    """Bytes of the parameters before, and as written."""
    return {"dense_bytes": sum(leaf.nbytes for leaf in leaves.values()), "stored_bytes": stored}


OWN = ("sparse", "sliced")  # formats that are run directories
FORMATS = {"hf": huggingface, "gguf": gguf, "peft": adapter, "sparse": sparse, "sliced": cut}
