"""A tuned run as a whole model of its own: adapters merged in float32, and what that did to probe rows."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import ModelConfig, TuneConfig, require
from chinchilla_jax.model import stacks, transformer
from chinchilla_jax.model.adapted import prefix
from chinchilla_jax.model.weights import merged
from chinchilla_jax.optim.sparsity import filled_zeros
from chinchilla_jax.training import origin, params_only, resume
from chinchilla_jax.training.load import Loaded
from chinchilla_jax.types import Batch

ROWS, LENGTH = 4, 32
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # of the largest logit


def whole(loaded: Loaded) -> tuple[Any, dict[str, float]]:
    """Plain parameters in one stack, how far their logits are from those of the adapter, and how many zeros of the base
    are filled; too far is a `UserError`.

    What is merged into are the very matrices that the adapter was trained against: dequantised, if the base was stored
    in few bits.
    """
    require(
        "heads" not in loaded.params,
        "this run has a head of its own, which `merge` has no place for; use export --merge",
    )
    require(not prefix(loaded.params["embed"]["table"]), "a soft prompt has no merged form; keep it beside its base")
    cfg = loaded.program.config.model
    with jax.set_mesh(loaded.program.mesh):
        plain = jax.jit(lambda params: stacks.whole(merged(params)))(loaded.params)
        before, after = (np.asarray(_logits(params, cfg)) for params in (loaded.params, plain))
    found = {"largest_logit": float(np.abs(before).max()), "largest_difference": float(np.abs(after - before).max())}
    found["filled_zeros"] = filled_zeros(loaded.params, plain)
    most = TOLERANCE[cfg.dtype] * found["largest_logit"]
    require(
        found["largest_difference"] <= most,
        f"merging moves a logit of {ROWS} probe rows by {found['largest_difference']:.2g}, more than {most:.2g}; "
        "merge with --model.dtype float32, or keep the adapter beside its base",
    )
    return plain, found


def _logits(params: Any, cfg: ModelConfig) -> jax.Array:
    """Logits (B, L, V) of rows of tokens that depend on the vocabulary alone."""
    shape = (ROWS, LENGTH)
    tokens = np.random.default_rng(0).integers(0, cfg.vocab_size, shape).astype(np.int32)
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), shape)
    ones = np.ones(shape, np.int32)
    batch = Batch(tokens, tokens, ones.astype(np.float32), ones, positions)

    @jax.jit
    def run(params):
        hidden_BLD = transformer.apply(params, batch, cfg)
        table_VD = transformer.unembedding(params).astype(hidden_BLD.dtype)
        return jnp.einsum("bld,vd->blv", hidden_BLD, table_VD, preferred_element_type=jnp.float32)

    return run(params)


def write(out: Path, run_dir: Path, loaded: Loaded, params: Any) -> None:
    """`params` as a run in `out`, a new folder, that needs no base; its origin.json says what was merged."""
    own = resume.own_config(run_dir)
    optimizer = dataclasses.replace(own.optimizer, ema_decay=0.0)  # an average is what was merged
    config = dataclasses.replace(own, optimizer=optimizer, tune=TuneConfig())
    leaves = params_only.deferred(params)
    params_only.write(out, config, run_dir, leaves, dtype=loaded.program.config.model.dtype, step=loaded.step)
    origin.inherit(out, run_dir, loaded.facts)
