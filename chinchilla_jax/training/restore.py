"""Finding the newest checkpoint that verifies, and bringing it onto today's mesh."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from chinchilla_jax.config import require
from chinchilla_jax.disk import is_remote
from chinchilla_jax.errors import UserError
from chinchilla_jax.optim import sparsefile
from chinchilla_jax.parallel.collectives import first_said, from_first, largest
from chinchilla_jax.training import best, integrity, packing
from chinchilla_jax.training.commits import PARTIAL, leftovers
from chinchilla_jax.training.integrity import Damaged
from chinchilla_jax.training.orbax_logs import quiet_orbax

ITEM = "default"  # the name that Orbax's own CheckpointManager gives to a single tree; ours holds a folder an item


@dataclass
class Restored:
    """A state that verified; `notes` names each newer step that did not, and what was wrong with it."""

    step: int
    state: Any
    meta: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    mesh: dict[str, int] = field(default_factory=dict)  # that it was saved on
    fingerprint: str = ""  # of what was read: a digest of its leaves' own


def named_leaves(tree: Any) -> dict[str, Any]:
    """Path such as `params/blocks/qkv` -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    if len(named) < len(leaves):
        raise ValueError("two leaves of the state have the same path")
    return named


def absolute(folder: Any) -> Any:
    """A checkpoints folder as Orbax needs it, which finds no metadata below a relative path."""
    return folder if is_remote(folder) else Path(folder).absolute()


def step_folders(folder: Any) -> list[int]:
    """Numbers that folders below `folder` are named by, sorted, whether or not a checkpoint is in them.

    What is marked as being written or deleted counts only if it is complete.
    """
    if not folder.is_dir():
        return []
    names = {path.name for path in folder.iterdir()}
    numbers = sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)
    return [n for n in numbers if f"{n}{PARTIAL}" not in names or integrity.complete(folder / str(n))]


def newest(folder: Any, abstract: Any, *, level: str, step: int | None = None, part: str = "") -> Restored | None:
    """The newest step (or `step`) that verifies, on the shardings of `abstract`; None if there is no step folder.

    `level` is that of `CheckpointConfig.verify`. With `part`, `abstract` is only the subtree of that name.
    """
    quiet_orbax()
    folder = absolute(folder)
    found = from_first(step_folders(folder))
    if not found and step is None:
        packed = folder.parent / sparsefile.FILE
        require(not packed.exists(), f"{packed} holds parameters alone; to train on from them name another --run-dir")
        return None
    if step is not None and step not in found:
        there = ", ".join(map(str, found)) or "none"
        raise UserError(f"{folder} has no checkpoint {step}; it has {there}; {_put_back(folder, step)}")
    notes: list[str] = []
    for n in [step] if step is not None else reversed(found):
        report = from_first(outline(folder / str(n)) if jax.process_index() == 0 else None)
        state, problem = None, report.get("problem")
        if problem is None:
            try:
                check_share(folder / str(n), report["manifest"], abstract, level, part)
                state = read(folder / str(n), report["manifest"], abstract, level, part)
            except (Damaged, OSError) as error:
                problem = str(error)
        if not largest(problem is not None):
            notes += [f"fell back to checkpoint {n}"] if notes else []
            manifest = report["manifest"]
            digest = fingerprint(manifest["leaves"], abstract, part)
            return Restored(n, state, manifest["meta"], notes, manifest.get("mesh", {}), digest)
        notes.append(f"checkpoint {n} is damaged: {problem or 'another process could not read it'}")
    over = "move that folder away or choose another --run-dir to start over"
    fix = over if step is None else _put_back(folder, step)
    raise UserError(f"no usable checkpoint in {folder} ({'; '.join(notes)}); {fix}")


def _put_back(folder: Any, step: int) -> str:
    """The fix where a checkpoint that was asked for cannot be used."""
    newest = f", or delete {folder.parent / best.FILE}, which names it, to take the newest"
    return f"put checkpoint {step} back" + newest * (best.read(folder.parent).get("step") == step)


def fingerprint(stored: dict[str, dict], abstract: Any, part: str) -> str:
    """A digest of names, shapes, types and fingerprints of the leaves of a tree, or of that part of the state."""
    names = named_leaves(abstract)
    prefix = locate(stored, names, part) if part else ""
    facts = {name: stored[prefix + name] for name in sorted(names)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def newest_meta(folder: Any) -> dict[str, Any]:
    """What the newest checkpoint that is there in full size says of its run; nothing where there is none."""
    for n in reversed(step_folders(folder)):
        if manifest := examine(folder / str(n), "size").get("manifest"):
            return manifest["meta"]
    return {}


def load_params(
    folder: Any, abstract_params: Any, *, average: bool = False, level: str = "hash", step: int | None = None
) -> Restored:
    """Only the parameters of the newest step that verifies, or their moving average; the rest is not read.

    The average is the field `average` of the optimizer's state.
    """
    found = newest(folder, abstract_params, level=level, step=step, part="average" if average else "params")
    if found is None:
        raise UserError(f"there is no checkpoint in {folder}; run pretrain first")
    return found


def unpacked(path: Path, abstract: Any) -> Restored:
    """The parameters of `export --format sparse`."""
    leaves, facts = sparsefile.read(path)
    names = named_leaves(abstract)
    fits = {name: tuple(leaf.shape) for name, leaf in names.items()} == {n: x.shape for n, x in leaves.items()}
    require(fits, f"{path} holds another model than config.json beside it says; write both again")
    state = jax.tree.unflatten(
        jax.tree.structure(abstract),
        [jax.device_put(leaves[name].astype(leaf.dtype), leaf.sharding) for name, leaf in names.items()],
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Restored(facts["step"], state, facts["meta"], fingerprint=digest)


def inspect(folder: Any, level: str = "hash") -> dict[str, Any]:
    """What is in a checkpoints folder, from manifests and checksums alone; nothing is loaded or changed."""
    folder = absolute(folder)
    steps = []
    for n in step_folders(folder):
        report = examine(folder / str(n), level)
        entry = {"step": n, "ok": "manifest" in report, "problem": report.get("problem")}
        if manifest := report.get("manifest"):
            entry |= {
                key: manifest.get(key)
                for key in ("version", "versions", "mesh", "devices", "processes", "config_sha256")
            }
            entry |= {"bytes": sum(f["size"] for f in manifest["files"]), "leaves": len(manifest["leaves"])}
        steps.append(entry)
    usable = [entry["step"] for entry in steps if entry["ok"]]
    left = [path.name for path in leftovers(folder)]
    return {"folder": str(folder), "newest": max(usable, default=None), "steps": steps, "leftovers": left}


def outline(folder: Any) -> dict[str, Any]:
    """{"manifest": ...} of a step folder that has all files in full size, else {"problem": why not}."""
    try:
        manifest = integrity.read_manifest(folder)
        if str(manifest["step"]) != folder.name:
            raise Damaged(f"{integrity.MANIFEST} is that of step {manifest['step']}")
        integrity.check_sizes(folder, manifest)
        return {"manifest": manifest}
    except (Damaged, OSError) as problem:
        return {"problem": str(problem)}


def examine(folder: Any, level: str) -> dict[str, Any]:
    """`outline`, and beyond the level `size` every byte."""
    report = outline(folder)
    if level == "size" or "problem" in report:
        return report
    try:
        integrity.check_contents(folder, report["manifest"], [f["path"] for f in report["manifest"]["files"]])
        return report
    except (Damaged, OSError) as problem:
        return {"problem": str(problem)}


def check_share(folder: Any, manifest: dict, abstract: Any, level: str, part: str) -> None:
    """Every process checks its share of the files that hold `abstract`, and hears what the others found: `Damaged`."""
    leaves = named_leaves(abstract)
    prefix = locate(manifest["leaves"], leaves, part) if part else ""
    wanted = {place(manifest, prefix + name) for name in leaves}
    others = {place(manifest, name) for name in manifest["leaves"]} - wanted
    names = [f["path"] for f in manifest["files"] if not f["path"].startswith(tuple(f"{other}/" for other in others))]
    share = [] if level == "size" else names[jax.process_index() :: jax.process_count()]
    problem = ""
    try:
        integrity.check_contents(folder, manifest, share)
    except (Damaged, OSError) as error:
        problem = str(error)
    if problem := first_said(problem):
        raise Damaged(problem)


def item_of(name: str) -> str:
    """The Orbax item of a leaf, so that what is asked for together is read and checked alone."""
    parts = name.split("/")
    return "average" if "average" in parts[:-1] else parts[0] if len(parts) > 1 else "counts"


def by_item(leaves: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Leaves by name, an item after the other."""
    items: dict[str, dict[str, Any]] = {}
    for name, leaf in leaves.items():
        items.setdefault(item_of(name), {})[name] = leaf
    return items


def place(manifest: dict, name: str) -> str:
    """The folder of a leaf's item below the step's; checkpoints of format 1 have one item of all."""
    return ITEM if manifest.get("format") == 1 else f"{ITEM}/{item_of(name)}"


def read(folder: Any, manifest: dict, abstract: Any, level: str, part: str = "") -> Any:
    """The tree `abstract`, or that part of the state, from a verified step folder, as donatable arrays."""
    leaves = named_leaves(abstract)
    prefix = locate(manifest["leaves"], leaves, part) if part else ""
    want = {prefix + name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(x)) for name, x in leaves.items()}
    check_leaves(manifest["leaves"], want, partial=bool(part))
    masks = {name for name, x in want.items() if packing.packs(x) and manifest["leaves"][name].get("packed")}
    held = {name: packing.stored(x) if name in masks else x for name, x in want.items()}
    places: dict[str, dict[str, Any]] = {}
    for name, x in held.items():
        places.setdefault(place(manifest, name), {})[name] = x
    state: dict[str, jax.Array] = {}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        for where, those in places.items():
            state |= _read_item(reader, folder / where, those)
    for name, x in want.items():
        # A restored buffer may belong to the reader, and donating it fails; a copy made by XLA is XLA's own. Leaf by
        # leaf, so that there are never two whole states on the device.
        own = partial(packing.unpack, mask=x) if name in masks else jax.jit(jnp.copy, out_shardings=x.sharding)
        state[name] = own(state[name])
    if level == "full":
        check_fingerprints(manifest["leaves"], state)
    return jax.tree.unflatten(jax.tree.structure(abstract), [state[name] for name in want])


def _read_item(reader: ocp.Checkpointer, folder: Any, held: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Leaves of one of Orbax's items; others that it holds are not read."""
    how = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape, dtype=x.dtype), held)
    try:
        stored = reader.metadata(folder).item_metadata.tree
        check_storage(stored, held)
        some = len(held) < len(stored)
        return reader.restore(folder, args=ocp.args.PyTreeRestore(item=held, restore_args=how, partial_restore=some))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"Orbax cannot read it: {(str(error).splitlines() or ['?'])[0][:200]}") from error


def locate(stored: dict[str, dict], names: Iterable[str], part: str) -> str:
    """The prefix, such as `params/` or `opt_state/3/average/`, under which a subtree's leaves are stored."""
    first = "/" + next(iter(names))
    parents = [name.removesuffix(first) for name in stored if name.endswith(first)]
    parents = [parent for parent in parents if parent.split("/")[-1] == part]
    if not parents:
        raise UserError(f"the checkpoint holds no {part} for this model (no leaf {part}{first})")
    return min(parents, key=len) + "/"


def check_storage(stored: dict[str, Any], want: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Raise `Damaged` if reading would allocate or cast beyond `want`: only Orbax's own metadata tells."""
    for name, x in want.items():
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        shape = tuple(stored[name].shape)[: len(x.shape)] if key else tuple(stored[name].shape)
        chunk = stored[name].storage.chunk_shape if stored[name].storage else ()
        if shape != x.shape or not (key or stored[name].dtype == x.dtype):
            raise Damaged(f"{name} is stored as {stored[name].dtype}{list(stored[name].shape)}")
        if math.prod(chunk) > max(1, math.prod(stored[name].shape)):
            raise Damaged(f"{name} is stored in pieces of {list(chunk)}, larger than itself")


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
        raise UserError(
            f"the checkpoint does not fit the model: {'; '.join(wrong[:5])}{more}; another model, optimizer, sparsity "
            "or delayed rows need another --run-dir, and a pruned run serves evaluate and generate alone"
        )


def check_fingerprints(stored: dict[str, dict], leaves: dict[str, jax.Array]) -> None:
    """Raise `Damaged` unless what is on the devices is what was on the devices at the save."""
    for name, words in zip(leaves, np.asarray(integrity.fingerprint(leaves))):
        if [int(word) for word in words] != stored[name]["fingerprint"]:
            raise Damaged(f"{name} does not match its fingerprint")
