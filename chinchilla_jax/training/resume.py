"""What a run directory remembers of its run, and whether the same run may go on in it."""

from pathlib import Path
from typing import Any

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config, require, stored
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizers import copy_tokenizer
from chinchilla_jax.disk import read_json, write_json
from chinchilla_jax.errors import UserError
from chinchilla_jax.training.metrics import read

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
    "objective.positions",
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


def same_base(old: Any, new: Any) -> bool:
    """Whether two paths to a base lead to one folder; its fingerprint in the checkpoints speaks for what is in it."""
    return bool(old and new) and Path(old).resolve() == Path(new).resolve()


def refuse_harmful(run_dir: Path, changed: dict[str, tuple], config: Config, fix: str) -> None:
    """Raise a `UserError` that lists those of the changed settings that would make it another run."""
    by_rows = config.adversarial.on or (config.corruption.share and config.corruption.copies)
    shaped = ("train.microbatches",) if by_rows else ()  # which rows are attacked or copied each microbatch decides
    harmful = {name: pair for name, pair in changed.items() if not name.startswith(HARMLESS) or name in shaped}
    if same_base(*harmful.get("tune.base", ("", ""))):
        del harmful["tune.base"]
    listed = "; ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in harmful.items())
    require(not harmful, f"{run_dir} holds a run with other settings: {listed}; {fix}")


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
