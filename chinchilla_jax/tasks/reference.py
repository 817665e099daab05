"""What a reference model makes of pairs, computed once before training and kept in the run directory."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.disk import read_json, write_json

STORED = "reference.json"  # log p of the chosen and the rejected answer of every pair, and what they belong to


def passing(task: TaskConfig, passes: float) -> TaskConfig:
    """Whether the reference is stored: where pairs are seen as they are, and at least once each."""
    if task.reference != "auto":
        return task
    return dataclasses.replace(task, reference="stored" if passes >= 1 and not task.augmented else "computed")


def prepare(examination: Any, judge: Any, folder: Path) -> None:
    """Give the pairs to train on the log-probabilities of the reference, where these are stored."""
    program, data, path = examination.program, examination.data, folder / STORED
    if program.config.task.reference != "stored":
        return
    told = data.fingerprint, program.base.facts["fingerprint"], data.task.preference, program.config.model.dtype
    belongs = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    scores_N2 = kept(path, belongs)
    if scores_N2 is None:
        scores_N2 = judge.before_training(data.first)
        if jax.process_index() == 0:
            write_json(path, {"belongs": belongs, "scores": scores_N2.tolist()})
    for number, (item, scores_2) in enumerate(zip(data.first, scores_N2)):
        parts = (dataclasses.replace(part, reference=float(score)) for part, score in zip(item.parts, scores_2))
        data.first[number] = dataclasses.replace(item, parts=tuple(parts))


def kept(path: Path, belongs: str) -> np.ndarray | None:
    """What an earlier start of the run has stored, if it was of the same pairs and the same base."""
    if not path.exists():
        return None
    found = read_json(path)
    return np.array(found["scores"]) if found["belongs"] == belongs else None
