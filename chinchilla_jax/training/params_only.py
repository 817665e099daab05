"""Run directories whose checkpoint holds parameters alone: imported and pruned models."""

from pathlib import Path
from typing import Any

import jax

from chinchilla_jax.config import Config
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.training import mirror, resume
from chinchilla_jax.training.checkpoint import Checkpoints
from chinchilla_jax.training.one_by_one import Deferred
from chinchilla_jax.training.restore import named_leaves


def deferred(params: Any) -> dict[str, Deferred]:
    """Parameters that are there already, by path, as leaves to be written."""
    return {path: Deferred(leaf, lambda leaf=leaf: leaf) for path, leaf in named_leaves(params).items()}


def write(
    run_dir: Path,
    config: Config,
    tokenizer: Path,
    leaves: dict[str, Deferred],
    *,
    dtype: str,
    step: int = 0,
    data: str | None = None,
    base: dict[str, Any] | None = None,
) -> None:
    """Checkpoint `step` of `leaves` by path, the settings and the tokenizer: what every command but `pretrain` needs.

    `dtype` is the compute type that the config's "auto" came to, `data` the fingerprint of the training data if any,
    `base` what `Program.base_facts` says where the leaves are those of an adapter.
    """
    meta = resume.facts(config, dtype, data, open_tokenizer(tokenizer).sha256) | (base or {})
    with Checkpoints(mirror.checkpoints(run_dir), config.checkpoint, meta=meta) as checkpoints:
        checkpoints.save_one_by_one(step, {f"params/{path}": leaf for path, leaf in leaves.items()})
    if jax.process_index() == 0:
        resume.write_run(run_dir, config, tokenizer)
