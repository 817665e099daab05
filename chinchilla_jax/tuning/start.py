"""What a tuning run is made of before it starts: the base, its tokenizer, the examples, and settings nobody gave."""

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.config import Config, TaskConfig, get, replace, require
from chinchilla_jax.finetuning import methods
from chinchilla_jax.objectives.build import build
from chinchilla_jax.parallel import devices, sharding
from chinchilla_jax.parallel import mesh as meshes
from chinchilla_jax.scaling import counts
from chinchilla_jax.tasks.data import TaskData, as_tuned, open_task
from chinchilla_jax.training import load, resume
from chinchilla_jax.training.metrics import duration
from chinchilla_jax.training.program import Program, check_memory, total_tokens

WINDOWS = 64  # windows are multiples of this
VALIDATIONS = 10  # at most, unless --train.eval-every says otherwise


@dataclass
class Job:
    """A settled config with its examples."""

    config: Config
    run_dir: Path
    data: TaskData


@contextlib.contextmanager
def start(config: Config, run_dir: Path, given: set[str]) -> Iterator[Job]:
    """Settle everything; `given` names the settings of the command line and of a config file. A run that goes on has
    its own for the rest. Raises `UserError` for what cannot be."""
    fresh = not (run_dir / "config.json").exists()
    based = bool(config.tune.base)
    if fresh and based and config.tune.method == "off":
        config = replace(config, {"tune.method": "lora"})
    if fresh:
        config = load.tuned(config, run_dir)
    else:
        config = replace(resume.own_config(run_dir), {name: get(config, name) for name in given})
    require(bool(config.task.train), "name the examples with --task.train FILE")
    require(
        not config.train.shift_windows,
        "--train.shift-windows is nothing that finetune looks at: it packs its rows anew in every epoch; leave it out",
    )
    base = load.find_base(config.tune.base, run_dir) if based else None
    with tempfile.TemporaryDirectory() as scratch:
        opened = partial(open_task, folder=base, scratch=Path(scratch), **as_tuned(config))
        if not fresh:
            yield Job(config, run_dir, checked(config, opened(config.task)))
            return
        own = "train.seq_len" in given or base is None
        length = config.train.seq_len if own else needed(config.task, opened, resume.own_config(base).context)
        data = opened(config.task, seq_len=length)
        config = fitted(dataclasses.replace(config, task=data.task), data)
        config = timed(config, data, given)
        yield Job(config, run_dir, checked(config, data))


def checked(config: Config, data: TaskData) -> TaskData:
    """`data`, of which validation and test can be judged, and whose loss goes with the attack.

    Raises `UserError` otherwise: here, before anything of the run is written.
    """
    require(
        bool(config.tune.base) or not data.kind.compares,
        f"--task.kind {data.kind.name} holds a model against what it was before; name that run with --from DIR",
    )
    build(meshes.resolve(config, meshes.build(config.mesh)), make=data.kind.objective)
    data.encode_all()
    return data


def needed(task: TaskConfig, opened: Callable[..., TaskData], longest: int) -> int:
    """The window that holds the longest example, or as many documents of the base's length as make one."""
    data = opened(task, seq_len=longest)
    if data.kind.documents > 1:  # a pair: each answer may be as long as what the base can read
        longest *= data.kind.documents
        data = opened(task, seq_len=longest)
    held = max(max(map(len, data.first)), max(map(len, data.encoded(data.valid)), default=0))
    return min(longest, -(-held // WINDOWS) * WINDOWS)


def fitted(config: Config, data: TaskData) -> Config:
    """A config whose windows are the data's and whose table has a row for every piece.

    New pieces have rows that any method trains; the base gets them at the mean of its table.
    """
    own, size = config.model.vocab_size, data.tokenizer.size
    changes: dict[str, Any] = {"model.vocab_size": max(own, size), "train.seq_len": data.seq_len}
    if data.added and config.tune.method != "full":
        changes["tune.rows"] = data.added
    if data.kind.keeps_template and config.objective.positions == "auto":  # turns that are not answers have no loss
        changes["objective.positions"] = "trained"
    if config.adversarial.special is None:
        changes["adversarial.special"] = data.tokenizer.special
    return replace(config, changes)


def timed(config: Config, data: TaskData, given: set[str]) -> Config:
    """Batch size, steps, rates, validations and checkpoints, where the command line does not say."""
    shards, rows = sharding.shards("batch", meshes.build(config.mesh)), data.packed.rows_of(1)
    batch = config.train.batch_size
    if "train.batch_size" not in given:
        batch = max(1, min(batch, rows // 8) // shards) * shards
    steps = config.train.steps if "train.steps" in given else data.steps(batch)
    every = -(-steps // min(VALIDATIONS, max(1, round(config.task.epochs))))
    every = config.train.eval_every if "train.eval_every" in given else every
    told = {
        "train.batch_size": batch,
        "train.steps": steps,
        "train.eval_every": every,
        "train.log_every": 1 if steps <= 200 else 10,
        "checkpoint.every": every or steps,
        "checkpoint.keep": 1,
        "optimizer.warmup_steps": round(0.05 * steps),
        **(methods.defaults(config.tune.method) if config.tune.base else {}),
    }
    config = replace(config, {name: value for name, value in told.items() if name not in given})
    passes = config.train.rows_before(config.train.steps) / rows
    return dataclasses.replace(config, task=data.kind.passing(config.task, passes))


def figures(program: Program, compiled: jax.stages.Compiled) -> dict[str, Any]:
    """What trains, and what the run costs, from shapes and from the compiled step; bytes are per device."""
    memory, config = compiled.memory_analysis(), program.config
    trained = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(program.abstract.params))
    whole = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(program.abstract_whole))
    flops_per_s = devices.expected_flops_per_s(list(program.mesh.devices.flat))
    flops = total_tokens(config.train) * counts.flops_per_token(config.model, config.train.seq_len)
    needed = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    needed -= memory.alias_size_in_bytes
    check_memory(program, needed)
    return {
        "method": config.tune.method,
        "trained_parameters": trained,
        "parameters": whole,
        "steps": config.train.steps,
        "rows": config.train.batch_size,
        "seq_len": config.train.seq_len,
        "memory_bytes": needed,
        "optimizer_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.abstract.opt_state)),
        "seconds_at_most": flops / flops_per_s if flops_per_s else None,
    }


def table(found: dict[str, Any]) -> str:
    """The same for a reader."""
    share = found["trained_parameters"] / found["parameters"]
    lines = [
        f"{found['method']}: {found['trained_parameters']:,} of {found['parameters']:,} parameters train ({share:.2%})",
        f"{found['steps']:,} steps of {found['rows']} rows of {found['seq_len']} tokens",
        f"{found['memory_bytes'] / 1e9:.2f} GB a device, {found['optimizer_bytes'] / 1e6:.1f} MB of it the optimizer's",
    ]
    if found["seconds_at_most"]:
        lines.append(f"expected time: {duration(found['seconds_at_most'])} if everything trained, less with adapters")
    return "\n".join(lines)
