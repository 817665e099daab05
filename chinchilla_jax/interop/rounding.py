"""What rounding the weights to a shorter type does to the loss, in nats a token."""

import dataclasses
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ObjectiveConfig
from chinchilla_jax.data.builders.docstrings import documents
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.errors import UserError
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.training.load import Loaded
from chinchilla_jax.types import Batch

TOKENS, WINDOW = 4096, 512


def measure(loaded: Loaded, params: Any, store: str, dtype: str, say: Callable[[str], None]) -> dict[str, float]:
    """{"loss": ..., "loss_rounded": ...} over about `TOKENS` tokens; nothing for float32, which rounds nothing.

    The tokens are the first of the validation set of `store` where that was made with the run's tokenizer, else
    docstrings of Python's own library.
    """
    if dtype == "float32":
        return {}
    cfg = loaded.program.config.model
    ids, source = sample(loaded.tokenizer, Path(store), TOKENS + 1)
    batch = windows(ids, min(WINDOW, cfg.context or WINDOW))
    evaluate = jax.jit(dense(dataclasses.replace(cfg, remat="none"), ObjectiveConfig()).evaluate)
    before = evaluate(params, batch)
    after = evaluate(jax.jit(partial(rounded, dtype=dtype))(params), batch)
    loss, less = float(before.loss / before.weight), float(after.loss / after.weight)
    say(f"loss in float32 {loss:.4f} nats a token, in {dtype} {less:.4f} ({less - loss:+.4f}), {source}")
    return {"loss": loss, "loss_rounded": less, "loss_difference": less - loss}


def rounded(params: Any, dtype: str) -> Any:
    """The parameters as a reader of the file will have them."""
    return jax.tree.map(lambda w: jax.lax.reduce_precision(w, *BITS[dtype]).astype(jnp.float32), params)


BITS = {"bfloat16": (8, 7), "float16": (5, 10)}  # of the exponent and of the mantissa


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
