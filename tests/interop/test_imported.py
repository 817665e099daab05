"""Hugging Face folders become runs that compute what transformers computes."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from chinchilla_jax.model import transformer
from chinchilla_jax.training.load import load
from chinchilla_jax.types import Batch
from tests import runs, tiny
from tests.interop import folders

IDS_BL = np.random.default_rng(0).integers(0, 300, (2, 40)).astype(np.int32)
each_kind = pytest.mark.parametrize("kind", folders.KINDS)


def imported(source, run_dir, **flags):
    """The run of an import that must succeed, loaded."""
    code, said = runs.call("import", str(source), **{"run-dir": run_dir, **flags})
    assert code == 0, said
    return load(runs.config(run_dir), str(run_dir), whole_mesh=False)


def our_logits(cfg, params, ids_BL=IDS_BL):
    """What our model gives for the ids of one document a row."""
    one_BL = np.ones(ids_BL.shape, np.int32)
    places_BL = np.broadcast_to(np.arange(ids_BL.shape[1], dtype=np.int32), ids_BL.shape)
    batch = Batch(ids_BL, ids_BL, np.float32(one_BL), one_BL, places_BL)

    @functools.partial(tiny.jit)
    def forward(params):
        with jax.default_matmul_precision("highest"):
            return transformer.apply(params, batch, cfg) @ transformer.unembedding(params).T

    return np.asarray(forward(params))


@each_kind
def test_logits(kind, tmp_path):
    told = folders.settings(kind)
    weights = folders.tensors(told)
    source = folders.write(tmp_path / "theirs", told, weights, shards=1 + (kind == "Qwen3ForCausalLM"))
    loaded = imported(source, tmp_path / "run")
    expected = folders.logits(told, weights, IDS_BL)
    found = our_logits(loaded.program.config.model, loaded.params)
    assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
    assert loaded.step == 0 and loaded.program.config.model.context == 64
    origin = json.loads((tmp_path / "run" / "origin.json").read_text())
    assert origin["architecture"] == kind and "config.json" in origin["files"]
    assert (tmp_path / "run" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("a sea  of stones")) == "a sea  of stones"


def test_an_interrupted_import_leaves_nothing(whole, tmp_path, monkeypatch):
    """An error on the way, here a full disk, takes the half-written run with it."""
    from chinchilla_jax.training import one_by_one

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one_by_one, "write", full)
    source = shutil.copytree(whole / "single", tmp_path / "source")
    code, said = runs.call("import", str(source), **{"run-dir": tmp_path / "run"})
    assert code == 74 and "No space left" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
