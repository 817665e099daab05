"""Damaged and foreign folders: one line that names the fault, exit code 78, and nothing written."""

import json
import os
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.interop import huggingface
from tests import runs
from tests.interop import folders
from tests.interop.damage import KIND, Q, W, cut, refused


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


def with_nan(weights):
    weights[Q][1, 1] = np.nan


def tokenizer_of_another_size(folder):
    from tests.data import jsons

    jsons.write(folder, jsons.byte_level(size=400))


def foreign(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x02}q\x00.")


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
    "an end in the config": (lambda f: tell(f, eos_token_id=[2, 300]), "source/config.json: eos_token_id '300'"),
    "a generation config of no table": (lambda f: (f / "generation_config.json").write_text("[2]"), "no table"),
    "waves that vanish": (lambda f: tell(f, rope_theta=1e-300), "rope-theta 1e-300 must lie in"),
    "a token out of its place": (lambda f: added(f, 5000), "does not follow"),
    "a template that is no text": (lambda f: (f / "chat_template.jinja").write_bytes(b"\xff{"), "chat_template.jinja"),
    "a list of templates": (lambda f: tell(f, "tokenizer_config.json", chat_template=["a"]), "no template"),
    "a list of tokens": (lambda f: tell(f, "tokenizer_config.json", eos_token=["a"]), "no name of a token"),
    "checksums that are none": (lambda f: (f / "SHA256SUMS").write_text("hello\n"), "SHA256SUMS"),
    "another checksum": (lambda f: (f / "SHA256SUMS").write_text(f"{'0' * 64}  {W}\n"), "is damaged"),
}


@pytest.mark.parametrize("case", SINGLE)
def test_one_file(case, whole, tmp_path):
    damage, word = SINGLE[case]
    source = shutil.copytree(whole / "single", tmp_path / "source")
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


@pytest.mark.parametrize(("told", "generation", "stops"), [
    ([2, 7], None, {0, 2, 7}), ([2, 7], {"temperature": 0.5}, {0, 2, 7}), (7, None, {0, 2, 7}),
    ([2, 7], {"eos_token_id": 9}, {0, 2, 9}), ([0, 2], None, {0, 2}),
])  # fmt: skip
def test_ends_of_the_config_where_no_generation_config_says(told, generation, stops, whole, tmp_path):
    """As in transformers; 0 and 2 are those of the tokenizer's own settings."""
    source, place = shutil.copytree(whole / "single", tmp_path / "source"), tmp_path / "place"
    tell(source, eos_token_id=told)
    if generation:
        (source / "generation_config.json").write_text(json.dumps(generation))
    place.mkdir()
    assert open_tokenizer(huggingface.Folder(source).write_tokenizer(place)).stops == stops
    kept = place / "generation_config.json"
    assert kept.exists() == (generation is not None or told != [0, 2])
    assert not generation or json.loads(kept.read_text()).items() >= generation.items()


@pytest.mark.parametrize(("card", "license"), [
    ("---\nlicense: apache-2.0\n---\n", "apache-2.0"), ("---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
    ("---\nlicense:  # two\n- mit\n- cc-by-4.0\ntags: [a]\n---\n", "mit, cc-by-4.0"),
    ("---\nlicense: [mit, gpl-3.0]\n---\n", "mit, gpl-3.0"), ("---\ntags: a\n---\nlicense: x\n", ""), ("", ""),
])  # fmt: skip
def test_the_licence_of_a_card(card, license, tmp_path):
    (tmp_path / "README.md").write_bytes(card.encode())
    assert huggingface.license_name(tmp_path, {}) == license
    assert huggingface.license_name(tmp_path, {"license": "of\x1b[2J\nits own"}) == "of\\x1b[2J its own"


def test_a_bias_that_we_lack(tmp_path):
    told = folders.settings(KIND, attention_bias=True)
    weights = folders.tensors(told)
    weights["model.layers.1.self_attn.o_proj.bias"][3] = 0.5
    folders.write(tmp_path / "source", told, weights)
    refused(tmp_path / "source", tmp_path, "o_proj.bias is not 0")


@pytest.mark.parametrize("shards", [1, 2])
def test_tables_of_rotary_waves_are_passed_over(shards, tmp_path):
    """Llama 2's files hold them; they follow from the settings."""
    told = folders.settings(KIND)
    waves = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32) for n in (0, 1)}
    source = folders.write(tmp_path / "source", told, folders.tensors(told) | waves, shards)
    assert not waves.keys() & huggingface.Folder(source).shapes.keys()


def test_many_layers_that_are_not_there(whole, tmp_path):
    source = shutil.copytree(whole / "single", tmp_path / "source")
    tell(source, num_hidden_layers=2_000_000_000)
    refused(source, tmp_path, "num_hidden_layers")
