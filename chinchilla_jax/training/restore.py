"""Finding the newest checkpoint that verifies, and bringing it onto today's mesh."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from chinchilla_jax.errors import UserError
from chinchilla_jax.training import integrity
from chinchilla_jax.training.agreement import from_first
from chinchilla_jax.training.integrity import Damaged

ITEM = "default"  # the name that Orbax's own CheckpointManager gives to a single tree


@dataclass
class Restored:
    """A state that verified; `notes` names each newer step that did not, and what was wrong with it."""

    step: int
    state: Any
    meta: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Path such as `params/blocks/qkv` -> leaf."""
    return {
        jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def step_folders(folder: Path) -> list[int]:
    """Numbers that folders below `folder` are named by, sorted, whether or not a checkpoint is in them."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and str(int(p.name)) == p.name)


def newest(folder: Path, abstract: Any, *, level: str, step: int | None = None) -> Restored | None:
    """The newest step (or `step`) that verifies at `level`, on the shardings of `abstract`; None if there is no step."""
    found = from_first(step_folders(folder))
    if not found and step is None:
        return None
    if step is not None and step not in found:
        raise UserError(f"{folder} has no step {step}; it has {', '.join(map(str, found)) or 'none'}")
    notes: list[str] = []
    for n in [step] if step is not None else reversed(found):
        report = from_first(examine(folder / str(n), level))
        if "problem" not in report:
            try:
                state = read(folder / str(n), report["manifest"], abstract, level)
                return Restored(n, state, report["manifest"]["meta"], notes)
            except Damaged as problem:
                report = {"problem": str(problem)}
        notes.append(f"checkpoint {n} is damaged: {report['problem']}")
    raise UserError(
        f"no checkpoint in {folder} can be used ({'; '.join(notes)}); "
        "move that folder away or choose another --run-dir to start over"
    )


def examine(folder: Path, level: str) -> dict[str, Any]:
    """{"manifest": ...} of a step folder whose files verify, else {"problem": why not}."""
    try:
        manifest = integrity.read_manifest(folder)
        if str(manifest["step"]) != folder.name:
            raise Damaged(f"{integrity.MANIFEST} is that of step {manifest['step']}")
        integrity.check_files(folder, manifest, level)
        return {"manifest": manifest}
    except (Damaged, OSError) as problem:
        return {"problem": str(problem)}


def read(folder: Path, manifest: dict, abstract: Any, level: str, prefix: str = "") -> Any:
    """The leaves of `abstract`, called `prefix` + their path in the checkpoint, as donatable arrays."""
    want = {prefix + name: x for name, x in named_leaves(abstract).items()}
    check_leaves(manifest["leaves"], want, partial=bool(prefix))
    shardings = {name: _sharding(x) for name, x in want.items()}
    how = {
        name: ocp.ArrayRestoreArgs(sharding=shardings[name], global_shape=x.shape, dtype=x.dtype)
        for name, x in want.items()
    }
    targets = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name]) for name, x in want.items()}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        args = ocp.args.PyTreeRestore(item=targets, restore_args=how, partial_restore=bool(prefix))
        try:
            leaves = reader.restore(folder / ITEM, args=args)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"Orbax cannot read it: {(str(error).splitlines() or ['?'])[0][:200]}") from error
    for name in leaves:
        # A restored buffer may belong to the reader, and donating it fails; a copy made by XLA is XLA's own.
        leaves[name] = jax.jit(jnp.copy, out_shardings=shardings[name])(leaves[name])
    if level == "full":
        check_fingerprints(manifest["leaves"], leaves)
    return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[name] for name in want])


def _sharding(x: Any) -> jax.sharding.Sharding:
    return getattr(x, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def check_leaves(stored: dict[str, dict], want: dict[str, Any], partial: bool = False) -> None:
    """Raise a `UserError` that lists the leaves on which checkpoint and model differ; nothing is cast or filled in."""
    wrong = [f"{name} is not in the checkpoint" for name in want if name not in stored]
    wrong += [f"{name} is not in the model" for name in stored if name not in want and not partial]
    for name, x in want.items():
        here = (list(x.shape), str(x.dtype))
        there = (stored[name]["shape"], stored[name]["dtype"]) if name in stored else here
        if here != there:
            wrong.append(f"{name} is {there[1]}{there[0]} in the checkpoint and {here[1]}{here[0]} in the model")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(f"the checkpoint does not fit the model: {'; '.join(wrong[:5])}{more}")


def check_fingerprints(stored: dict[str, dict], leaves: dict[str, jax.Array]) -> None:
    """Raise `Damaged` unless what is on the devices is what was on the devices at the save."""
    for name, words in zip(leaves, np.asarray(integrity.fingerprint(leaves))):
        if [int(word) for word in words] != stored[name]["fingerprint"]:
            raise Damaged(f"{name} does not match its fingerprint")
