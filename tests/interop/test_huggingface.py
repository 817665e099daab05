"""Damaged and foreign folders: one line that names the fault, exit code 78, and nothing written."""

import json
import os
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop import architectures, huggingface
from tests import runs
from tests.interop import folders

KIND = "LlamaForCausalLM"
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two whole folders, of one file and of three, to be copied and damaged."""
    place = tmp_path_factory.mktemp("damaged")
    folders.folder(place / "single", KIND)
    folders.folder(place / "sharded", KIND, shards=3)
    return place


def tell(folder, file="config.json", **changes):
    """Change a file of settings."""
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))


def added(folder, i):
    """Give the tokenizer one more token, with the id `i`."""
    told = json.loads((folder / "tokenizer.json").read_text())
    tell(
        folder,
        "tokenizer.json",
        added_tokens=[*told["added_tokens"], {**told["added_tokens"][0], "id": i, "content": "<x>"}],
    )


def again(folder, change):
    """Write the weights again after `change(weights)`."""
    weights = folders.tensors(folders.settings(KIND))
    save_file(change(weights) or weights, folder / "model.safetensors")


def header(folder, change):
    """Rewrite the header of the weights."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    found = json.loads(content[8 : 8 + size])
    change(found)
    made = json.dumps(found).encode()
    path.write_bytes(struct.pack("<Q", len(made)) + made + content[8 + size :])


def index(folder, change):
    """Change the table of shards."""
    path = folder / INDEX
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def cut(path, size):
    """Keep the first bytes of a file, or leave out the last ones."""
    path.write_bytes(path.read_bytes()[:size])


def linked(folder, name, target):
    """Put a link in a file's place."""
    (folder / name).unlink()
    (folder / name).symlink_to(target)


def piped(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)


def without_text(folder, told_too=True):
    """Leave the tokenizer its control tokens, with an empty model or with one of these alone."""
    told = json.loads((folder / "tokenizer.json").read_text())
    names = {token["content"]: token["id"] for token in told["added_tokens"]} if told_too else {}
    tell(folder, "tokenizer.json", model={**told["model"], "vocab": names, "merges": []})


def ends(folder, told):
    """What a generation_config.json says of the end of a text; the tokenizer has 300 ids."""
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": told}))


def renamed(weights, old, new):
    weights[new] = weights.pop(old)


def with_nan(weights):
    weights[Q][1, 1] = np.nan


def tokenizer_of_another_size(folder):
    from tests.data import jsons

    jsons.write(folder, jsons.byte_level(size=400))


def foreign(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x02}q\x00.")


W, INDEX = "model.safetensors", "model.safetensors.index.json"
SINGLE = {  # what is done to the folder, and a word of the line
    "no such folder": (lambda f: shutil.rmtree(f), "no such file"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config is not JSON": (lambda f: cut(f / "config.json", 40), "not JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[1]"), "no table"),
    "config is deep": (lambda f: (f / "config.json").write_text("[" * 200_000), "not JSON"),
    "config is not UTF-8": (lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}'), "not JSON"),
    "config is a pipe": (lambda f: piped(f, "config.json"), "no plain file"),
    "config is a folder": (lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()), "no plain file"),
    "no weights": (lambda f: (f / W).unlink(), "no weights"),
    "weights of another name": (
        lambda f: (f / W).rename(f / "consolidated.safetensors"),
        "consolidated.safetensors is",
    ),
    "pickled weights": (lambda f: foreign(f, "pytorch_model.bin"), "pytorch_model.bin"),
    "empty weights": (lambda f: cut(f / W, 0), "safetensors"),
    "truncated length": (lambda f: cut(f / W, 5), "safetensors"),
    "truncated header": (lambda f: cut(f / W, 100), "safetensors"),
    "truncated data": (lambda f: cut(f / W, -4), "safetensors"),
    "data beyond the last tensor": (lambda f: (f / W).write_bytes((f / W).read_bytes() + b"1234"), "safetensors"),
    "an endless header": (lambda f: (f / W).write_bytes(struct.pack("<Q", 2**62) + b"{}"), "safetensors"),
    "header is not JSON": (lambda f: (f / W).write_bytes(struct.pack("<Q", 2) + b"no"), "safetensors"),
    "a pickle of that name": (lambda f: (f / W).write_bytes(b"\x80\x02}q\x00."), "safetensors"),
    "offsets that overlap": (lambda f: header(f, lambda h: h[Q].update(data_offsets=[0, 2304])), "safetensors"),
    "a shape that does not fill": (lambda f: header(f, lambda h: h[Q].update(shape=[24, 23])), "safetensors"),
    "an unknown dtype": (lambda f: header(f, lambda h: h[Q].update(dtype="F3")), "safetensors"),
    "whole numbers": (lambda f: header(f, lambda h: h[Q].update(dtype="I32")), "I32"),
    "a link to nothing": (lambda f: linked(f, W, "gone"), "link to nothing"),
    "a link to itself": (lambda f: linked(f, W, W), W),
    "a link to a folder": (lambda f: linked(f, W, "."), "no plain file"),
    "a name of control characters": (
        lambda f: again(f, lambda w: w.update({"a\n\x1b[2J" + "b" * 5000: w[Q]})),
        "a \\x1b[2Jbbb",
    ),
    "missing key": (lambda f: again(f, lambda w: w.pop(Q) is None), "q_proj.weight is missing"),
    "extra key": (lambda f: again(f, lambda w: w.update(extra=w[Q])), "extra is not understood"),
    "keys without a prefix": (lambda f: again(f, lambda w: {k[6:]: v for k, v in w.items()}), "is missing"),
    "a tensor turned": (lambda f: again(f, lambda w: w.update({Q: w[Q][:12]})), "[12, 24]"),
    "values that are no numbers": (lambda f: again(f, with_nan), "not finite"),
    "another table at the output": (
        lambda f: again(f, lambda w: w.update({"lm_head.weight": 2 * w["model.embed_tokens.weight"]})),
        "lm_head.weight differs",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
    "tokenizer is not JSON": (lambda f: cut(f / "tokenizer.json", 90), "tokenizer"),
    "tokenizer of another size": (tokenizer_of_another_size, "the tokenizer has"),
    "a tokenizer that is empty": (lambda f: cut(f / "tokenizer.json", 0), "source/tokenizer.json"),
    "an empty vocabulary": (lambda f: without_text(f, told_too=False), "the vocabulary is empty"),
    "a vocabulary of control tokens": (without_text, "the vocabulary is empty"),
    "an end of text": (lambda f: ends(f, "2"), "generation_config.json: eos_token_id '2'"),
    "an end below 0": (lambda f: ends(f, -7), "eos_token_id '-7'"),
    "an end beyond the tokens": (lambda f: ends(f, [2, 300]), "eos_token_id '300' is no id of a token (0 to 299)"),
    "an end that is true": (lambda f: ends(f, True), "eos_token_id 'True'"),
    "an end that is a fraction": (lambda f: ends(f, [1.5]), "eos_token_id '1.5'"),
    "a list of nothing as ends": (lambda f: ends(f, [None]), "eos_token_id 'None'"),
    "a generation config of no table": (lambda f: (f / "generation_config.json").write_text("[2]"), "no table"),
    "waves that vanish": (lambda f: tell(f, rope_theta=1e-300), "rope-theta 1e-300 must lie in"),
    "a token out of its place": (lambda f: added(f, 5000), "does not follow"),
    "a template that is no text": (lambda f: (f / "chat_template.jinja").write_bytes(b"\xff{"), "chat_template.jinja"),
    "a list of templates": (lambda f: tell(f, "tokenizer_config.json", chat_template=["a"]), "no template"),
    "a list of tokens": (lambda f: tell(f, "tokenizer_config.json", eos_token=["a"]), "no name of a token"),
    "checksums that are none": (lambda f: (f / "SHA256SUMS").write_text("hello\n"), "SHA256SUMS"),
    "another checksum": (lambda f: (f / "SHA256SUMS").write_text(f"{'0' * 64}  {W}\n"), "is damaged"),
}
SHARDED = {
    "missing shard": (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), "lacks 1 of 3 shards"),
    "truncated shard": (lambda f: cut(f / "model-00002-of-00003.safetensors", -8), "00002"),
    "shards exchanged": (
        lambda f: shutil.copy(f / "model-00001-of-00003.safetensors", f / "model-00002-of-00003.safetensors"),
        "00002",
    ),
    "index is not JSON": (lambda f: cut(f / INDEX, 50), "not JSON"),
    "index without a table": (lambda f: index(f, lambda t: t.pop("weight_map")), "no weight_map"),
    "index that leaves the folder": (
        lambda f: index(f, lambda t: t["weight_map"].update({Q: "../x.safetensors"})),
        "no name of a .safetensors file",
    ),
    "index of an endless name": (
        lambda f: index(f, lambda t: t["weight_map"].update({Q: "a" * 5000 + ".safetensors"})),
        "no name of a .safetensors file",
    ),
    "index of an absolute path": (
        lambda f: index(f, lambda t: t["weight_map"].update({Q: "/etc/passwd"})),
        "no name of a .safetensors file",
    ),
    "index names too few": (lambda f: index(f, lambda t: t["weight_map"].pop(Q)), "index does not name"),
    "index names too many": (
        lambda f: index(f, lambda t: t["weight_map"].update(more="model-00001-of-00003.safetensors")),
        "has no tensor more",
    ),
}


def refused(source, tmp_path, word, *flags):
    """Import must end with code 78 and one line, and leave nothing beside the source."""
    before = sorted(path.name for path in tmp_path.iterdir())
    code, said = runs.call("import", str(source), *flags, **{"run-dir": tmp_path / "run"})
    assert code == 78, said
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and word in lines[0] and "Traceback" not in said, said
    assert len(lines[0]) < 2500 and lines[0].isprintable()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("case", SINGLE)
def test_one_file(case, whole, tmp_path):
    damage, word = SINGLE[case]
    source = shutil.copytree(whole / "single", tmp_path / "source")
    damage(source)
    refused(source, tmp_path, word)


@pytest.mark.parametrize("case", SHARDED)
def test_many_files(case, whole, tmp_path):
    damage, word = SHARDED[case]
    source = shutil.copytree(whole / "sharded", tmp_path / "source")
    damage(source)
    refused(source, tmp_path, word)


def test_a_link_to_a_file_is_followed(whole, tmp_path):
    """As in Hugging Face's cache, whose folders are links."""
    cache, blobs = tmp_path / "models--a--b", tmp_path / "models--a--b" / "blobs"
    source = shutil.copytree(whole / "single", cache / "snapshots" / "0123abc")
    blobs.mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        shutil.move(path, blobs / str(number))
        path.symlink_to(f"../../blobs/{number}")
    refused(cache, tmp_path, "snapshots")
    code, said = runs.call("import", str(source), **{"run-dir": tmp_path / "run"})
    assert code == 0, said


LABELLED = {"architectures": ["LlamaForSequenceClassification"]}
SETTINGS = {  # what a config.json says, and a word of the line that refuses it
    "another model": ({"model_type": "gpt2"}, "gpt2"),
    "no type": ({"model_type": None}, "model_type"),
    "a type that is no word": ({"model_type": ["llama"]}, "model_type"),
    "mixture of experts": ({"model_type": "mixtral"}, "mixtral"),
    "Gemma 2": ({"model_type": "gemma2"}, "gemma2"),
    "a class that is not known": ({"architectures": ["LlamaModel"]}, "LlamaModel"),
    "a head of another family": ({"architectures": ["Qwen2ForSequenceClassification"]}, "Qwen2ForSequenceClass"),
    "two classes": ({"architectures": ["LlamaForCausalLM", "LlamaModel"]}, "LlamaModel"),
    "a word for classes": ({"architectures": "LlamaForCausalLM"}, "architectures LlamaForCausalLM"),
    "a regression": ({**LABELLED, "num_labels": 1}, "regression"),
    "another problem": ({**LABELLED, "problem_type": "regression"}, "regression"),
    "labels with gaps": ({**LABELLED, "id2label": {"0": "a", "2": "b"}}, "id2label"),
    "labels of one name": ({**LABELLED, "id2label": {"0": "a", "1": "a"}}, "id2label"),
    "a list of labels": ({**LABELLED, "id2label": ["a", "b"]}, "id2label"),
    "endless labels": ({**LABELLED, "num_labels": 10**12}, "num_labels"),
    "tags without biases": (
        {"architectures": ["LlamaForTokenClassification"], "token_classification_bias": False},
        "token_classification_bias",
    ),
    "experts in a Llama": ({"num_local_experts": 8}, "num_local_experts"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "code of its own": ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
    "soft cap": ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    "a window of text": ({"sliding_window": "16"}, "sliding_window"),
    "local layers": ({"layer_types": ["sliding_attention", "full_attention"]}, "sliding_attention"),
    "both directions": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "yarn": ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    "longrope": ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
    "waves of each layer": ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "between layers"),
    "waves without a number": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
    "half of a head": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "half of a head inside": (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "partial_rotary_factor",
    ),
    "neighbours": ({"rope_interleaved": True}, "rope_interleaved"),
    "exact GELU": ({"hidden_act": "gelu"}, "gelu"),
    "no width": ({"hidden_size": None}, "hidden_size"),
    "a width of text": ({"hidden_size": "24"}, "hidden_size"),
    "a width below 0": ({"hidden_size": -24}, "hidden_size"),
    "true layers": ({"num_hidden_layers": True}, "num_hidden_layers"),
    "endless layers": ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
    "no epsilon": ({"rms_norm_eps": "small"}, "rms_norm_eps"),
    "an infinite base": ({"rope_theta": float("inf")}, "rope_theta"),
    "a base of 0": ({"rope_theta": 0}, "rope-theta"),
    "a base below 0": ({"rope_theta": -10000.0}, "rope_theta"),
    "a base below 1": ({"rope_theta": 1e-3}, "rope-theta"),
    "a base beyond float32": ({"rope_theta": 1e300}, "rope-theta"),
    "a base of text": ({"rope_theta": "10000"}, "rope_theta"),
    "a base that vanishes inside": (
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e-300}},
        "rope-theta",
    ),
    "a stretch that vanishes": ({"rope_scaling": {"rope_type": "linear", "factor": 1e-300}}, "rope-factor"),
    "an endless epsilon": ({"rms_norm_eps": 1e300}, "norm-eps"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "kv-heads"),
    "tied is a word": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    "biases of the hidden layer alone": ({"mlp_bias": True}, "mlp_bias"),
    "two stretches": (
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        "factor is said twice, as 2.0 and 4.0",
    ),
    "two kinds of stretch": (
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
        "rope_type is said twice",
    ),
    "two bases": ({"rope_theta": 500.0, "rope_parameters": {"rope_theta": 1e4}}, "rope_theta is said twice"),
    "a class that is a table": ({"architectures": [{"a": 1}]}, "is not supported"),
    "a list of waves": ({"rope_parameters": [1]}, "rope_parameters is"),
    "waves of a list": ({"rope_scaling": {"rope_type": ["x"]}}, "rope_type"),
    "a list of activations": ({"hidden_act": ["silu"]}, "hidden_act"),
    "layers that are a number": ({"layer_types": 5}, "layer_types 5"),
    "biases by a word": ({"attention_bias": "yes"}, "attention_bias"),
    "a factor on the logits": ({"logit_scale": 0.5}, "logit_scale"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_are_not_understood(case):
    changes, word = SETTINGS[case]
    with pytest.raises(UserError, match=word):
        architectures.to_settings(folders.settings(KIND, **changes))


def test_settings_that_say_nothing():
    told = {"quantization_config": None, "sliding_window": 64, "pretraining_tp": 1, "new_flag": False, "new_list": []}
    architectures.to_settings(folders.settings(KIND, **told))
    architectures.to_settings(folders.settings(KIND, colour="red"), ("colour",))


def test_values_that_stand_for_others():
    """No number of key and value heads is as many as heads; the first Gemma files say gelu and mean its tanh form."""
    for kind in folders.KINDS:
        assert architectures.to_settings(folders.settings(kind, num_key_value_heads=None)).model.kv_heads == 4
    gemma = folders.settings("GemmaForCausalLM", hidden_act="gelu", hidden_activation=None)
    assert architectures.to_settings(gemma).model.mlp == "geglu"


@pytest.mark.parametrize(("card", "license"), [
    ("---\nlicense: apache-2.0\n---\n", "apache-2.0"), ("---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
    ("---\nlicense:  # two\n- mit\n- cc-by-4.0\ntags: [a]\n---\n", "mit, cc-by-4.0"),
    ("---\nlicense: [mit, gpl-3.0]\n---\n", "mit, gpl-3.0"), ("---\ntags: a\n---\nlicense: x\n", ""), ("", ""),
])  # fmt: skip
def test_the_licence_of_a_card(card, license, tmp_path):
    (tmp_path / "README.md").write_bytes(card.encode())
    assert huggingface.license_name(tmp_path, {}) == license
    assert huggingface.license_name(tmp_path, {"license": "of\x1b[2J\nits own"}) == "of\\x1b[2J its own"


def test_a_sliding_window_narrows_the_context():
    """Within the window a model with one computes what a model without one does (Mistral 0.1: 4,096 of 32,768)."""
    narrow = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    found = architectures.to_settings(folders.settings("MistralForCausalLM", **narrow))
    assert found.model.context == 16 and found.facts["context"].startswith("16 tokens of 64")
    for changes in ({"sliding_window": 64}, {"sliding_window": None}):
        found = architectures.to_settings(folders.settings("MistralForCausalLM", **changes))
        assert found.model.context == 64 and not found.facts
    told = folders.settings("MistralForCausalLM", max_position_embeddings=32768)
    del told["sliding_window"]
    assert architectures.to_settings(told).model.context == 4096, "which is the class's default"
    off = {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 1}
    assert architectures.to_settings(folders.settings("Qwen2ForCausalLM", **off)).model.context == 64
    on = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
    assert architectures.to_settings(folders.settings("Qwen2ForCausalLM", **on)).model.context == 16


def test_a_bias_that_we_lack(tmp_path):
    told = folders.settings(KIND, attention_bias=True)
    weights = folders.tensors(told)
    weights["model.layers.1.self_attn.o_proj.bias"][3] = 0.5
    folders.write(tmp_path / "source", told, weights)
    refused(tmp_path / "source", tmp_path, "o_proj.bias is not 0")


def test_many_layers_that_are_not_there(whole, tmp_path):
    source = shutil.copytree(whole / "single", tmp_path / "source")
    tell(source, num_hidden_layers=2_000_000_000)
    refused(source, tmp_path, "num_hidden_layers")


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
