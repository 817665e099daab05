"""What a run directory remembers of its run, and whether the same run may go on in it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, TrainConfig, require, stored
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizers import copy_tokenizer
from chinchilla_jax.disk import read_json, write_json
from chinchilla_jax.errors import UserError
from chinchilla_jax.training.metrics import read
from chinchilla_jax.training.restore import Restored

# Settings that may differ between two parts of a run: they change where and how it is computed, watched and kept, and
# the numbers at most in their last bits. Everything else would make it another run.
HARMLESS = (
    "mesh.",
    "checkpoint.",
    "model.kernels",
    "model.remat",
    "model.scan_unroll",
    "model.documents",
    "objective.tile_tokens",
    "objective.logits",
    "data.",  # the data's fingerprint, in every checkpoint, speaks for it
    *(f"task.{name}" for name in ("train", "valid", "test", "text", "label", "generate", "max_new_tokens", "patience")),
    "train.microbatches",
    "train.log_every",
    "train.eval_",
    "train.sample_",
    "train.profile_",
    "train.compile_cache",
    "train.max_bad_steps",
    "train.wandb",
)


def meta(config: Config, store: TokenStore, dtype: str) -> dict[str, Any]:
    """What goes into every checkpoint's manifest; `dtype` is what the config's "auto" came to."""
    return facts(config, dtype, store.fingerprint, store.tokenizer_sha256)


def facts(config: Config, dtype: str, data: str | None, tokenizer: str) -> dict[str, Any]:
    """The same, from the hashes of the data and of the tokenizer's file."""
    return {"dtype": dtype, "config": settings.to_dict(config), "data": data, "tokenizer": tokenizer}


def read_config(run_dir: Path) -> dict[str, Any]:
    """config.json of a run, or a one-line `UserError`."""
    return read_json(run_dir / "config.json", "put the run's own back, or choose another run")


def own_config(run_dir: Path) -> Config:
    """The settings of a run, those of which it knew nothing at their defaults."""
    try:
        return stored.from_json(read_config(run_dir))
    except UserError as error:
        raise UserError(f"{run_dir / 'config.json'}: {error}") from error


def check_config(run_dir: Path, config: Config, allow_changes: bool) -> None:
    """Refuse to go on in a directory whose run had other settings; the message lists them."""
    path = run_dir / "config.json"
    if not path.exists() or allow_changes:
        return
    changed = settings.differences(settings.to_dict(own_config(run_dir)), settings.to_dict(config))
    refuse_harmful(run_dir, changed, config, "choose another --run-dir, or --allow-changes")


def refuse_harmful(run_dir: Path, changed: dict[str, tuple], config: Config, fix: str) -> None:
    """Raise a `UserError` that lists those of the changed settings that would make it another run."""
    attacked = config.adversarial.on
    shaped = ("train.microbatches",) if attacked else ()  # which rows are attacked is decided in each microbatch
    harmful = {name: pair for name, pair in changed.items() if not name.startswith(HARMLESS) or name in shaped}
    listed = "; ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in harmful.items())
    require(not harmful, f"{run_dir} holds a run with other settings: {listed}; {fix}")


def announce(restored: Restored | None, meta: dict[str, Any], mesh: dict[str, int], say: Callable[[str], None]) -> None:
    """Say what the run goes on from, and on which mesh; another data set than the checkpoint's is a `UserError`.

    Another mesh adds the same numbers in another order: from there on they differ in their last bits.
    """
    if restored is None:
        base = meta.get("config", {}).get("tune", {}).get("base")
        say(f"starting from {base}" if base else "starting from fresh parameters")
        return
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
    before, after = (settings.from_dict(TrainConfig, config.get("train", {})) for config in (old, new))
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


def ended(run_dir: Path, step: int) -> bool:
    """Whether a run ended in order with `step`, its last validation and sample included."""
    return any(row["event"] == "end" and row["step"] == step for row in read(run_dir / "events.jsonl"))


def last_metrics(run_dir: Path) -> dict[str, Any]:
    """The rows of the last step as one."""
    rows = read(run_dir / "metrics.jsonl")
    last = max((row["step"] for row in rows), default=0)
    return {name: value for row in rows if row["step"] == last for name, value in row.items()}


def write_run(run_dir: Path, config: Config, tokenizer: Path) -> None:
    """Put the settings and the tokenizer into the run directory, so that it needs nothing else to be used."""
    write_json(run_dir / "config.json", stored.to_json(config))
    copy_tokenizer(tokenizer, run_dir)
