"""Judges of a kind without a model: outputs are what the targets say, or anything else that a test wants."""

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.tasks.data import TaskData
from chinchilla_jax.tasks.kinds.table import KINDS
from chinchilla_jax.tasks.pack import in_order
from chinchilla_jax.tasks.render import Renderer
from chinchilla_jax.tasks.template import PLAIN


def task_data(tokenizer, kind: str, records, seq_len: int = 512, **task) -> TaskData:
    """Records of a kind, all to train on."""
    row = KINDS[kind]
    tokenizer = open_tokenizer(tokenizer) if not hasattr(tokenizer, "encode") else tokenizer
    names = {"labels": row.names(records)} if row.names and "labels" not in task else {}
    config = TaskConfig(kind=kind, train=("here",), **names, **task)
    return TaskData(config, None, tokenizer, Renderer(PLAIN, tokenizer), seq_len, 0, list(records), list(records))


@dataclass
class Oracle:
    """An examination whose model is `says(batch)`, an array (B, L, ...)."""

    data: TaskData
    says: Callable[[Any], np.ndarray]
    tuned: dict[str, float] = field(default_factory=dict)
    name: str = "valid"
    program: Any = field(default_factory=lambda: types.SimpleNamespace(config=types.SimpleNamespace(model=None)))

    def __post_init__(self):
        self.records = self.data.valid
        self.items = self.data.encoded(self.records)

    def compiled(self, f):
        """Nothing: there is no model."""

    def over(self, run, params, poll):
        """What `says` says."""
        for held, batch in in_order(self.items, self.data.seq_len, 4, self.data.blocks):
            yield held, batch, self.says(batch)

    def judged(self):
        """Figures and rows of predictions."""
        return self.data.kind.judge(self)(None, lambda: None)


def sure(targets_BL, classes: int, p: float = 0.999):
    """Log-probabilities (B, L, C) that give `p` to the target of every token."""
    log_p_BLC = np.full((*targets_BL.shape, classes), np.log((1 - p) / max(classes - 1, 1)), np.float32)
    np.put_along_axis(log_p_BLC, targets_BL[..., None], np.float32(np.log(p)), -1)
    return log_p_BLC
