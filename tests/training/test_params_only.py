"""A run directory of parameters alone: what loads it finds all that it needs."""

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.training import params_only, restore, resume
from tests import runs, tiny


def test_a_run_of_parameters_alone_is_a_run(whole_run, tmp_path):
    """Settings, tokenizer, and a checkpoint whose facts are those of a pretrained one; the optimizer has no state."""
    config, params = runs.config(whole_run), tiny.spiced(tiny.MODERN)
    out = tmp_path / "made"
    facts = {"base": {"run": "b", "step": 3, "fingerprint": "f"}}
    leaves = params_only.deferred(params)
    params_only.write(out, config, whole_run, leaves, dtype="float32", step=9, data="f00d", base=facts)
    assert resume.own_config(out) == config
    assert (out / "tokenizer.model").read_bytes() == (whole_run / "tokenizer.model").read_bytes()
    meta, pretrained = (restore.newest_meta(folder / "checkpoints") for folder in (out, whole_run))
    assert meta["tokenizer"] == pretrained["tokenizer"] and meta["config"] == pretrained["config"]
    assert (meta["dtype"], meta["data"], meta["base"]) == ("float32", "f00d", facts["base"])
    assert all(name.startswith("params/") for name in runs.leaves(out, 9))
    found = restore.load_params(out / "checkpoints", jax.tree.map(jnp.zeros_like, params), level="full")
    jax.tree.map(np.testing.assert_array_equal, found.state, params)
