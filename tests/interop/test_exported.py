"""Runs become Hugging Face folders: the same bits after a round trip, logits as transformers would have them."""

import dataclasses
import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from chinchilla_jax.interop.exported import How, whole
from chinchilla_jax.model.weights import LowRank
from chinchilla_jax.optim.sparsity import filled_warning
from tests import runs, tiny
from tests.interop import folders, readers
from tests.interop.test_imported import IDS_BL, imported, our_logits


def exported(run_dir, out, **flags) -> str:
    """What an export that must succeed said."""
    code, said = runs.call("export", **{"run-dir": run_dir, "out": out, **flags})
    assert code == 0, said
    return said


def weights(folder) -> dict[str, np.ndarray]:
    """All tensors of a folder."""
    return {name: x for path in sorted(folder.glob("*.safetensors")) for name, x in load_file(path).items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An imported Qwen2 of random weights: its folder and its run."""
    place = tmp_path_factory.mktemp("exports")
    folders.folder(place / "theirs", "Qwen2ForCausalLM")
    imported(place / "theirs", place / "run")
    return place


@pytest.mark.parametrize("kind", folders.KINDS)
def test_round_trip(kind, tmp_path):
    """Their tensors come back bit for bit, in shards, and say the same as before."""
    biased = {"attention_bias": True, "mlp_bias": True} if kind == "LlamaForCausalLM" else {}
    source = folders.folder(tmp_path / "theirs", kind, shards=2, **biased)
    imported(source, tmp_path / "run")
    exported(tmp_path / "run", tmp_path / "out", **{"shard-size": 2e-5})
    before, after = weights(source), weights(tmp_path / "out")
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    readers.vllm_takes(tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == before.keys() and len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in before.values())
    told, found = folders.settings(kind, **biased), json.loads((tmp_path / "out" / "config.json").read_text())
    assert found["architectures"] == [kind] and found["dtype"] == "float32"
    expected = folders.logits(told, before, IDS_BL[:1])
    assert np.abs(folders.logits(found, after, IDS_BL[:1]) - expected).max() < 1e-9
    code, said = runs.call("import", str(tmp_path / "out"), **{"run-dir": tmp_path / "again"})
    assert code == 0, said
    first, second = (runs.config(tmp_path / name).model for name in ("run", "again"))
    assert first == second
    assert runs.leaves(tmp_path / "run", 0) == runs.leaves(tmp_path / "again", 0), "fingerprints of every leaf"


def test_a_trained_run(whole_run, tmp_path):
    """A run of our own, with its SentencePiece model: what transformers would compute is what we do."""
    exported(whole_run, tmp_path / "out")
    readers.vllm_takes(tmp_path / "out")
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found["architectures"] == ["LlamaForCausalLM"] and found["max_position_embeddings"] == 16
    params = runs.state(whole_run).params
    expected = folders.logits(found, weights(tmp_path / "out"), IDS_BL[:, :16])
    cfg = dataclasses.replace(runs.config(whole_run).model, vocab_size=len(params["embed"]["table"]), **tiny.PLAIN)
    ours = our_logits(cfg, params, IDS_BL[:, :16])
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max() + 1e-5
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "generation_config.json",
        "SHA256SUMS",
    } <= names


def test_bfloat16_says_its_loss(run, tmp_path):
    said = exported(run / "run", tmp_path / "out", dtype="bfloat16")
    assert "nats a token, in bfloat16" in said and "docstrings" in said
    before, after = weights(run / "theirs"), weights(tmp_path / "out")
    assert all(np.array_equal(before[name].astype(folders.BFLOAT16), after[name]) for name in before)
    again = imported(tmp_path / "out", tmp_path / "again")
    assert again.params["embed"]["table"].dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "q8_0"])
def test_gguf(dtype, run, tmp_path):
    """What comes back from the file; q8_0 says its loss and errs by at most half a step of the largest of 32."""
    said = exported(run / "run", tmp_path / "out.gguf", format="gguf", dtype=dtype)
    assert ("in q8_0" in said) == (dtype == "q8_0")
    readers.llama_cpp_takes(tmp_path / "out.gguf")
    before, again = runs.leaves(run / "run", 0), imported(tmp_path / "out.gguf", tmp_path / "again")
    assert (before == runs.leaves(tmp_path / "again", 0)) == (dtype == "float32")
    table = weights(run / "theirs")["model.embed_tokens.weight"]
    assert np.abs(np.asarray(again.params["embed"]["table"]) - table).max() <= np.abs(table).max() / 250


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_flipped_byte_is_refused(name, run, tmp_path):
    exported(run / "run", tmp_path / "out")
    path = tmp_path / "out" / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    code, said = runs.call("import", str(tmp_path / "out"), **{"run-dir": tmp_path / "again"})
    assert code == 78 and said.count("error:") == 1 and name in said, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_merge_says_how_many_zeros_of_a_sparse_base_it_fills():
    """As `merge` does; a run without adapters merges nothing."""
    params, draw, said = tiny.spiced(tiny.MODERN), np.random.default_rng(0), []
    query = params["blocks"]["attention"]["query"]
    query["kernel"] = query["kernel"].at[0].set(0)
    how = How("hf", "float32", 1, True)
    whole(SimpleNamespace(params=params), how, said.append)
    assert said == []
    a, b = (jnp.asarray(draw.standard_normal(shape), jnp.float32) for shape in ((2, 20, 3), (2, 3, 4, 6)))
    filled = query["kernel"][0].size
    query["kernel"] = LowRank(query["kernel"], a, b, None, 0.5, 0.0)
    whole(SimpleNamespace(params=params), how, said.append)
    assert said == [f"warning: {line}" for line in filled_warning(filled)] and f"filled {filled:,} zeros" in said[0]


def test_nothing_is_overwritten(run, tmp_path):
    code, said = runs.call("export", **{"run-dir": run / "run", "out": tmp_path})
    assert code == 78 and "nothing is overwritten" in said
