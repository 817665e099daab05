"""What rounding the weights to a shorter type does to the loss, in nats a token."""

import dataclasses
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.config import ObjectiveConfig
from chinchilla_jax.data.builders.docstrings import documents
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop.source import Source, leaves
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.optim.paths import named
from chinchilla_jax.training.load import Loaded
from chinchilla_jax.types import Batch

TOKENS, WINDOW = 4096, 512


class Rounding:
    """The loss of the parameters over about `TOKENS` tokens, and that of what a reader of the written file has.

    The tokens are the first of the validation set of `store` where that was made with the run's tokenizer, else
    docstrings of Python's own library.
    """

    def __init__(self, loaded: Loaded, params: Any):
        program = loaded.program
        self.cfg = dataclasses.replace(program.config.model, remat="none")
        ids, self.where = sample(loaded.tokenizer, Path(program.config.data.store), TOKENS + 1)
        self.batch = windows(ids, min(WINDOW, self.cfg.context or WINDOW))
        self._evaluate = jax.jit(dense(self.cfg, ObjectiveConfig()).evaluate)
        self.before = self.loss(params)
        self._shapes = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype, sharding=w.sharding), params)

    def loss(self, params: Any) -> float:
        """Nats a token."""
        sums = self._evaluate(params, self.batch)
        return float(sums.loss / sums.weight)

    def report(self, source: Source, dtype: str, say: Callable[[str], None]) -> dict[str, float]:
        """The figures of what was written, which is read for this."""
        found = leaves(source, named(self._shapes))
        read = [found[path].made() for path in named(self._shapes)]
        after = self.loss(jax.tree.unflatten(jax.tree.structure(self._shapes), read))
        less = after - self.before
        say(f"loss in float32 {self.before:.4f} nats a token, in {dtype} {after:.4f} ({less:+.4f}), {self.where}")
        return {"loss": self.before, "loss_rounded": after, "loss_difference": less}


def sample(tokenizer: BaseTokenizer, store: Path, count: int) -> tuple[np.ndarray, str]:
    """`count` ids of text, and where it is from."""
    try:
        found = TokenStore.open(str(store))
        if found.tokenizer_sha256 == tokenizer.sha256 and len(found.valid.tokens) >= count:
            return np.asarray(found.valid.tokens[:count], np.int32), f"on {count - 1} validation tokens of {store}"
    except UserError:
        pass  # there is no store here, or not a whole one: any text does
    ids: list[int] = []
    for _, text in documents([Path(sysconfig.get_path("stdlib"))]):
        ids += [tokenizer.separator, *tokenizer.encode(text), *tokenizer.end]
        if len(ids) >= count:
            break
    return np.array(ids[:count], np.int32), f"on {min(len(ids), count) - 1} tokens of Python's docstrings"


def windows(ids: np.ndarray, length: int) -> Batch:
    """Whole windows of `length` tokens, each of one segment."""
    rows = max(1, (len(ids) - 1) // length)
    length = min(length, len(ids) - 1)
    tokens_BL = ids[: rows * length].reshape(rows, length)
    targets_BL = ids[1 : rows * length + 1].reshape(rows, length)
    one_BL = np.ones((rows, length), np.int32)
    places_BL = np.broadcast_to(np.arange(length, dtype=np.int32), one_BL.shape)
    return Batch(tokens_BL, targets_BL, np.float32(one_BL), one_BL, places_BL)
