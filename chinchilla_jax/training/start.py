"""The ways in which a run starts: from its own newest checkpoint, from another run, or from fresh parameters."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.config import TrainConfig, from_dict, require
from chinchilla_jax.training import origin
from chinchilla_jax.training.checkpoint import Checkpoints
from chinchilla_jax.training.load import check_base
from chinchilla_jax.training.metrics import Writer
from chinchilla_jax.training.program import Program
from chinchilla_jax.training.restore import Restored
from chinchilla_jax.training.state import TrainState


def find(
    program: Program, checkpoints: Checkpoints, meta: dict[str, Any], say: Callable[[str], None]
) -> Restored | None:
    """The run's own newest checkpoint that verifies, None for a new run; says which way it is. `meta` is the run's."""
    restored = checkpoints.restore(program.abstract)
    check_base(restored.meta if restored else {}, program.base)
    if restored is None:
        base = program.config.tune.base
        say(f"starting from {base}" if base else "starting from fresh parameters")
    else:
        announce(restored, meta, dict(program.mesh.shape), say)
    return restored


def state(program: Program, restored: Restored | None, run_dir: Path, writer: Writer) -> TrainState:
    """The state to begin with: the restored one, or one of fresh parameters or of another run's, which is noted."""
    if restored:
        return restored.state
    fresh = program.initial()
    if program.base is not None:
        facts = program.base.facts
        writer.event("from", **facts)
        if jax.process_index() == 0:
            origin.inherit(run_dir, program.base.folder, facts)
        if not jax.tree.leaves(program.abstract_frozen):
            program.base.release()  # nothing of it is looked at again
    return fresh


def announce(restored: Restored, meta: dict[str, Any], mesh: dict[str, int], say: Callable[[str], None]) -> None:
    """Say what the run goes on from, and on which mesh; another data set than the checkpoint's is a `UserError`.

    Another mesh adds the same numbers in another order: from there on they differ in their last bits.
    """
    for note in restored.notes:
        say(f"warning: {note}")
    for name in ("tokenizer", "data"):
        require(
            restored.meta.get(name) == meta[name],
            f"the checkpoint was trained on another {name} than this command names; give it the run's own "
            "(--data.store, or --task.train and --task.valid), or another --run-dir",
        )
    if restored.meta.get("dtype") != meta["dtype"]:
        say(f"warning: trained in {restored.meta.get('dtype')} so far, going on in {meta['dtype']} (--model.dtype)")
    moved = f"; saved on {sizes(restored.mesh)}, going on with {sizes(mesh)}" if restored.mesh not in ({}, mesh) else ""
    say(f"resumed from step {restored.step}, verified{moved}")
    if place := moved_in_text(restored.meta.get("config", {}), meta["config"], restored.step):
        say(f"warning: {place}")


def moved_in_text(old: dict, new: dict, step: int) -> str:
    """What a change of settings does to the place in the text after `step` steps; nothing where the place stays."""
    before, after = (from_dict(TrainConfig, config.get("train", {})) for config in (old, new))
    for name in ("seed", "seq_len"):
        if (was := getattr(before, name)) != (now := getattr(after, name)):
            return f"train.{name} was {was} and is {now}: the windows come in another order, so some are read again"
    read, skipped = before.rows_before(step), after.rows_before(step) - before.rows_before(step)
    if not skipped:
        return ""
    kept = tuple((start, rows) for start, rows in before.batch_ramp if start < step)
    now = next(rows for start, rows in reversed(after.phases) if start <= step)
    ramp = str((*kept, (step, now))).replace(" ", "")
    micro = math.gcd(now, *(rows for _, rows in before.phases))
    parts = (
        ""
        if now % (before.batch_size // before.microbatches) == 0
        else (f" --train.microbatches {before.batch_size // micro}")
    )
    return (
        f"{abs(skipped):,} windows of text are {'skipped' if skipped > 0 else 'read again'}: {step} steps had used "
        f"{read:,} and the new batch size counts {after.rows_before(step):,}; to change it from here on without that, "
        f"give --train.batch-size {before.batch_size} --train.batch-ramp '{ramp}'{parts}"
    )


def sizes(mesh: dict[str, int]) -> str:
    """A mesh in words."""
    count = math.prod(mesh.values())
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.items())
    return f"{count} device{'s' if count > 1 else ''} ({axes})"
