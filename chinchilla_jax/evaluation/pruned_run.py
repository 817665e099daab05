"""A pruned model as a run directory: its calibration set, and what evaluate and generate need of it."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import TrainConfig, TuneConfig, replace
from chinchilla_jax.data.batches import of_text
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.training import origin, params_only, resume
from chinchilla_jax.training.load import Loaded
from chinchilla_jax.types import Batch


def calibration(train: TrainConfig, store: TokenStore, rows: int, tokens: int) -> list[Batch]:
    """The first windows of training, its sources mixed as there: about `tokens` tokens in whole batches of `rows`."""
    windows = of_text(store, train).windows
    batches = -(-tokens // (rows * train.seq_len))
    return [windows.rows(np.arange(number * rows, (number + 1) * rows)) for number in range(batches)]


def write(out: Path, run_dir: Path, loaded: Loaded, params: Any, store: TokenStore, at: str) -> None:
    """`params` as the newest checkpoint of a run in `out`, a new folder, with the settings of the run in `run_dir`
    and the token store that it was pruned with, `at`: an imported run knows of none.

    Only parameters are saved: such a run is for evaluate and generate. An average of the parameters, where the run kept
    one, is what was pruned, so the new run keeps none.
    """
    own = resume.own_config(run_dir)
    kept = replace(own, {"optimizer.ema_decay": 0.0, "data.store": at})
    config = dataclasses.replace(kept, tune=TuneConfig())
    dtype, leaves = loaded.program.config.model.dtype, params_only.deferred(params)
    params_only.write(out, config, run_dir, leaves, dtype=dtype, step=loaded.step, data=store.fingerprint)
    if jax.process_index() == 0:
        origin.inherit(out, run_dir, loaded.facts)
