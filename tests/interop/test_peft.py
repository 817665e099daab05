"""Adapters as files: ours come back bit for bit, what is not supported is refused; test_peft_library.py asks peft."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chinchilla_jax.config import Config, TaskConfig, TuneConfig
from chinchilla_jax.finetuning.trees import flat, nest
from chinchilla_jax.interop import peft
from chinchilla_jax.optim.paths import named
from chinchilla_jax.training import params_only
from chinchilla_jax.training.load import Base, load
from chinchilla_jax.training.program import Program
from tests import runs
from tests.interop import folders
from tests.interop.test_exported import exported
from tests.interop.test_imported import imported

TINY = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
METHODS = {  # settings, and how many tensors peft has for them on three layers
    "lora": ({"rank": 4, "alpha": 10.0}, 42),
    "rslora": ({"rank": 4}, 42),
    "dora": ({"rank": 3}, 63),
    "adalora": ({"rank": 4}, 63),
    "ia3": ({}, 9),
    "prompt": ({"prompt": 5}, 1),
    "labelled": ({"method": "lora", "rank": 2, "targets": "q,v", "rows": (5, 320, 17)}, 14),
    "untied": ({"method": "lora", "rank": 2, "targets": "q,v", "rows": (5, 320, 17)}, 14),
    "tagged": ({"method": "dora", "rank": 2, "targets": "o,down"}, 20),
    "spanned": ({"method": "adalora", "rank": 2, "targets": "v"}, 11),
}
LABELS = ("bad", "good", "so-so")  # of the run `labelled`, which has a piece more than its base too
TASKS = {  # of the runs with a head
    "labelled": TaskConfig(kind="labels", labels=LABELS),
    "tagged": TaskConfig(kind="tags", labels=("O", "B-x", "I-x", "B-y", "I-y")),
    "spanned": TaskConfig(kind="spans"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An imported tiny Llama, and one with two tables, weights of deviation 0.02: their folders and their runs."""
    place = tmp_path_factory.mktemp("peft")
    for name, tied in (("", True), ("untied_", False)):
        told = folders.settings("LlamaForCausalLM", **TINY, tie_word_embeddings=tied)
        weights = {key: x if "norm" in key else x / np.float32(15) for key, x in folders.tensors(told).items()}
        folders.write(place / f"{name}theirs", told, weights)
        imported(place / f"{name}theirs", place / f"{name}base")
    return place


def base_of(place, name: str):
    """The run that an adapter belongs to."""
    return place / ("untied_base" if name == "untied" else "base")


def adapter_run(place, name: str, **settings):
    """A run that holds an adapter of random numbers; half of AdaLoRA's triplets are gone, and all of one matrix."""
    base = base_of(place, name)
    tune = TuneConfig(base=str(base), **{"method": name, **settings})
    own, task = runs.config(base), TASKS.get(name, TaskConfig())
    model = dataclasses.replace(own.model, vocab_size=max(own.model.vocab_size, 1 + max(tune.rows, default=0)))
    config = dataclasses.replace(Config(), model=model, train=own.train, tune=tune, task=task)
    program = Program(config, base=Base(config, base, None, None))
    draw, leaves = np.random.default_rng(1), {}
    for path, x in flat(program.abstract.params).items():
        values = 0.05 * draw.standard_normal(x.shape) + (path.split("/")[-1] in ("factors", "m"))
        if path.endswith("/e"):
            values[:, ::2] = 0
            values[0] *= "query" not in path
        leaves[path] = jax.device_put(values.astype(np.float32), x.sharding)
    leaves, dtype = params_only.deferred(nest(leaves)), program.config.model.dtype
    run_dir = place / f"run_{name}"
    run_dir.mkdir()
    if name in TASKS:
        told = {"kind": task.kind, "labels": task.labels, "opening": task.opening}
        (run_dir / "task.json").write_text(json.dumps(told))
    params_only.write(run_dir, config, base, leaves, dtype=dtype, base=program.base_facts())
    return run_dir


@pytest.fixture(scope="module")
def adapters(base):
    """A run of every method, made when it is asked for."""
    made = {}

    def of(method):
        if method not in made:
            made[method] = adapter_run(base, method, **METHODS[method][0])
        return made[method]

    return of


@pytest.mark.parametrize("method", [name for name in METHODS if name != "spanned"])
def test_round_trip(method, adapters, base, tmp_path):
    exported(adapters(method), tmp_path / "out", format="peft")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(tensors) == METHODS[method][1]
    flags = {"run-dir": tmp_path / "again", "base": base_of(base, method)}
    code, said = runs.call("import", str(tmp_path / "out"), **flags)
    assert code == 0, said
    first, second = (load(runs.config(path), str(path), whole_mesh=False) for path in (adapters(method),
                                                                                       tmp_path / "again"))  # fmt: skip
    for one, other in zip(named(first.trained).items(), named(second.trained).items(), strict=True):
        assert one[0] == other[0] and same(first, *one, other[1])
    assert first.program.config.task == second.program.config.task
    assert first.program.config.tune.scale(64) == second.program.config.tune.scale(64)


def same(loaded, path, one, other) -> bool:
    """Whether a leaf came back: of AdaLoRA's, what a triplet with e = 0 holds is gone."""
    one, other = np.asarray(one), np.asarray(other)
    if path.startswith("adapters/") and loaded.program.config.tune.method == "adalora":
        e_NR = np.asarray(flat(loaded.trained)[path.rpartition("/")[0] + "/e"])
        shape = (len(e_NR), *[1] * (one.ndim - 2), -1) if path.endswith("/a") else (*e_NR.shape, *[1] * (one.ndim - 2))
        one = one * (e_NR != 0).reshape(shape)
    if path.startswith("rows/"):  # kept whole there: the base's row is added and taken off again
        return np.abs(one - other).max() < 1e-7
    return np.array_equal(one, other)


def test_adalora_is_shrunk(adapters, tmp_path):
    exported(adapters("adalora"), tmp_path / "out", format="peft")
    told = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert told["init_r"] == 6 and sum(told["rank_pattern"]["model.layers.1.mlp.up_proj.lora_E"]) == 3
    assert tensors["base_model.model.model.layers.1.mlp.up_proj.lora_A"].shape == (3, 64)
    assert tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_B"].shape == (64, 0)


def test_a_merged_export(adapters, base, tmp_path):
    """The merged model is the base plus scale * B A, by hand."""
    code, said = runs.call("export", **{"run-dir": adapters("lora"), "out": tmp_path / "no"})
    assert code == 78 and "--merge" in said
    exported(adapters("lora"), tmp_path / "out", merge=None)
    exported(adapters("lora"), tmp_path / "adapter", format="peft")
    before, after = (load_file(path / "model.safetensors") for path in (base / "theirs", tmp_path / "out"))
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = "model.layers.2.self_attn.o_proj"
    product = tensors[f"base_model.model.{name}.lora_B.weight"] @ tensors[f"base_model.model.{name}.lora_A.weight"]
    assert np.abs(after[f"{name}.weight"] - before[f"{name}.weight"] - 2.5 * product).max() < 1e-6


def test_the_card_says_that_a_base_of_ours_is_exported_first(adapters, tmp_path, monkeypatch):
    """`from_pretrained` reads no run directory."""
    assert "is a run" not in exported(adapters("lora"), tmp_path / "a", format="peft")
    monkeypatch.setattr(peft, "base_name", lambda run, origin: run)
    said = exported(adapters("lora"), tmp_path / "b", format="peft")
    assert "--format hf` writes, in its place" in said
    assert "--format hf` writes, in its place" in (tmp_path / "b" / "README.md").read_text()


def test_a_head_and_rows_as_peft_writes_them(adapters, base, tmp_path):
    """Names and settings are those of a folder of peft 0.21.2; its rows are whole rows, ours what is added to them."""
    said = exported(adapters("labelled"), tmp_path / "out", format="peft")
    told = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (told["task_type"], told["modules_to_save"]) == ("SEQ_CLS", ["classifier", "score"])
    assert told["trainable_token_indices"] == {"embed_tokens": [5, 320, 17]}
    assert "num_labels=3" in said and "resize_token_embeddings(321)" in said
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    run = adapters("labelled")
    trained = load(runs.config(run), str(run), whole_mesh=False).trained
    assert np.array_equal(tensors["base_model.model.score.weight"], trained["heads"]["labels"]["kernel"])
    table = load_file(base / "theirs" / "model.safetensors")["model.embed_tokens.weight"]
    before = np.stack([table[5], table.mean(0), table[17]])
    found = tensors["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"]
    assert np.abs(found - before - trained["rows"]["embed"]["table"]).max() < 1e-6


CLASSES = {"labelled": "SequenceClassification", "tagged": "TokenClassification", "spanned": "QuestionAnswering"}


@pytest.mark.parametrize("name", CLASSES)
def test_a_head_goes_out_whole(name, adapters, tmp_path):
    """As transformers' class with that head, and back as a run that needs no base."""
    exported(adapters(name), tmp_path / "out", merge=None)
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["architectures"] == [f"LlamaFor{CLASSES[name]}"]
    assert list(told.get("id2label", {}).values()) == list(TASKS[name].labels)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert ("transformer.norm.weight" in tensors) == (name == "spanned") != ("model.norm.weight" in tensors)
    again = imported(tmp_path / "out", tmp_path / "again")
    first = load(runs.config(adapters(name)), str(adapters(name)), whole_mesh=False)
    assert again.program.config.task == first.program.config.task and not again.program.config.tune.base
    one, other = (named(loaded.params["heads"]) for loaded in (first, again))
    assert one.keys() == other.keys() and all(np.array_equal(one[path], other[path]) for path in one)
    exported(tmp_path / "again", tmp_path / "more")
    more = load_file(tmp_path / "more" / "model.safetensors")
    assert all(np.array_equal(tensors[key], more[key]) for key in tensors) and tensors.keys() == more.keys()
    code, said = runs.call(
        "export", **{"run-dir": adapters(name), "out": tmp_path / "g", "format": "gguf", "merge": None}
    )
    assert code == 78 and "no place for" in said


def test_a_run_that_reads_both_ways_has_no_class(adapters, base, tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "lora-both", dataclasses.replace(TASKS["labelled"], source="bidirectional"))
    run = adapter_run(base, "lora-both", method="lora")
    for form in ("hf", "peft", "gguf"):
        code, said = runs.call("export", **{"run-dir": run, "out": tmp_path / "out", "format": form, "merge": None})
        assert code == 78 and "both directions" in said and not list(tmp_path.iterdir())


def test_what_a_short_type_cannot_hold_is_refused(adapters, tmp_path, monkeypatch):
    monkeypatch.setattr(peft, "adapters", lambda loaded: ({"b": np.full(3, 1e6, np.float32)}, {}))
    flags = {"run-dir": adapters("lora"), "out": tmp_path / "out", "format": "peft", "dtype": "float16"}
    code, said = runs.call("export", **flags)
    assert code == 78 and "b does not fit into float16" in said and not list(tmp_path.iterdir())


def test_what_peft_has_no_form_for(adapters, base, tmp_path):
    code, said = runs.call("export", **{"run-dir": base / "base", "out": tmp_path / "out", "format": "peft"})
    assert code == 78 and "no adapter" in said and not list(tmp_path.iterdir())
    for run, word in (
        (adapter_run(base, "houlsby", rank=2), "the run directory itself"),
        (adapters("spanned"), "LlamaForQuestionAnswering of transformers takes no weights"),
    ):
        code, said = runs.call("export", **{"run-dir": run, "out": tmp_path / "out", "format": "peft"})
        assert code == 78 and word in said and said.count("error:") == 1 and not list(tmp_path.iterdir())


def test_damaged_adapters(adapters, base, tmp_path):
    exported(adapters("lora"), tmp_path / "out", format="peft")
    path = tmp_path / "out" / "adapter_model.safetensors"
    whole = load_file(path)
    (tmp_path / "out" / "SHA256SUMS").unlink()
    some = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
    for change, word in [
        (lambda t: t.pop(some), f"{some} is missing"),
        (lambda t: t.update({some: t[some][:2]}), "[2, 64]"),
        (lambda t: t.update(extra=t[some]), "extra is not supported"),
    ]:
        tensors = dict(whole)
        change(tensors)
        save_file(tensors, path)
        flags = {"run-dir": tmp_path / "again", "base": base / "base"}
        code, said = runs.call("import", str(tmp_path / "out"), **flags)
        assert code == 78 and word in said and said.count("error:") == 1, said
        assert not (tmp_path / "again").exists()
    code, said = runs.call("import", str(tmp_path / "out"), **{"run-dir": tmp_path / "again"})
    assert code == 78 and "--base" in said


def test_a_matrix_of_a_smaller_rank_is_one_with_zeros(adapters, base, tmp_path):
    """As peft's eva writes it, with the scale that all have, against the same adapter with the zeros in its file."""
    module, leaves = "base_model.model.model.layers.1.mlp.up_proj", {}
    exported(adapters("lora"), tmp_path / "out", format="peft")
    (tmp_path / "out" / "SHA256SUMS").unlink()
    told, path = tmp_path / "out" / "adapter_config.json", tmp_path / "out" / "adapter_model.safetensors"
    a, b = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
    tensors = load_file(path)
    pattern = {"rank_pattern": {"1.mlp.up_proj": 2}, "alpha_pattern": {"1.mlp.up_proj": 5}, "init_lora_weights": "eva"}
    small_a, small_b = tensors[a][:2], np.ascontiguousarray(tensors[b][:, :2])
    zeros = {a: np.pad(small_a, ((0, 2), (0, 0))), b: np.pad(small_b, ((0, 0), (0, 2)))}
    for name, kept, changes in (("zeros", zeros, {}), ("small", {a: small_a, b: small_b}, pattern)):
        save_file(tensors | kept, path)
        told.write_text(json.dumps(json.loads(told.read_text()) | changes))
        code, said = runs.call("import", str(path.parent), **{"run-dir": tmp_path / name, "base": base / "base"})
        assert code == 0, said
        leaves[name] = named(load(runs.config(tmp_path / name), str(tmp_path / name), whole_mesh=False).trained)
    for one, other in zip(leaves["zeros"].values(), leaves["small"].values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_adapter_names_the_weights_that_it_was_trained_on():
    """Where they were imported from, unless they were trained on, merged or pruned since."""
    assert peft.base_name("runs/b", {"format": "hf", "source": "theirs/model"}) == "theirs/model"
    assert peft.base_name("runs/b", {"format": "run", "source": "runs/a", "step": 20}) == "runs/b"
    assert peft.base_name("runs/b", {"format": "peft", "source": "theirs/lora"}) == "runs/b"
    assert peft.base_name("runs/b", {}) == "runs/b"
