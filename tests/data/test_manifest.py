"""What a manifest says is checked: seals, sizes, checksums, names of files, and the advice where one is damaged."""

import json
import shlex
from pathlib import Path

import pytest

from chinchilla_jax.commands import config_files, flags, prepare
from chinchilla_jax.config import Config, replace
from chinchilla_jax.data import build
from chinchilla_jax.data import manifest as manifests
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError


@pytest.mark.parametrize("name", ["train.bin", "valid.bin", "train.idx.npy", "valid.txt", "tokenizer.model"])
def test_damage_names_the_file(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: damaged.*prepare --data.sources .* --force"):
        TokenStore.open(folder)
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{name}: [\d,]+ bytes, expected"):
        TokenStore.open(folder, verify=False)
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing"):
        TokenStore.open(folder)


def rewrite(folder: Path, change) -> None:
    """Change the manifest and seal it again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest["xxh3_128"] = manifests.seal(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_every_flipped_bit_of_the_manifest_is_noticed_or_harmless(folder):
    content = (folder / "manifest.json").read_bytes()
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        try:
            found = manifests.parse_manifest(bytes(damaged), "store")
        except UserError as error:
            assert "damaged" in str(error) or "version" in str(error)
        else:
            assert found == json.loads(content)  # white space between the entries


@pytest.mark.parametrize("change", [{"version": 99}, {"version": None}, {"files": {}}, {"splits": []}])
def test_a_strange_manifest_is_refused(folder, change):
    rewrite(folder, lambda manifest: manifest.update(change))
    with pytest.raises(UserError, match=r"prepare --data\.sources TEXT .*--force"):
        TokenStore.open(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b"])
def test_a_manifest_cannot_name_files_elsewhere(folder, name):
    rewrite(folder, lambda manifest: manifest["files"].update({name: {"bytes": 1, "xxh3_128": ""}}))
    with pytest.raises(UserError, match="damaged"):
        TokenStore.open(folder)


def test_the_advice_for_a_damaged_store_makes_the_same_one(folder, made):
    """Without its sources the advised command would put another text in its place."""
    (folder / "train.bin").unlink()
    with pytest.raises(UserError) as refusal:
        TokenStore.open(folder)
    command = shlex.split(str(refusal.value).split("`")[1])
    parser = flags.parser_of("prepare", "", prepare)
    config = config_files.resolve(parser.parse(command[4:]))
    told = {name: getattr(config.data, name) for name in ("sources", "store", "vocab_size", "valid_fraction")}
    assert told == {name: getattr(made, name) for name in told} | {"store": str(folder)}


def test_the_advice_holds_for_lists_and_for_settings_inside_settings(tmp_path):
    wanted = replace(Config(), {
        "data.sources": ("a", "b c"), "data.weights": (0.7, 0.3), "data.clean": ("html", "controls"),
        "data.near.mode": "drop", "data.quality.on": True, "data.repetition.top_grams": (0.3, 0.2, 0.1),
        "data.store": str(tmp_path),
    }).data  # fmt: skip
    settings = {**build.identity(wanted), "of_a_version_to_come": 1}
    command = shlex.split(manifests.again(tmp_path, {"settings": settings}).split("`")[1])
    assert config_files.resolve(flags.parser_of("prepare", "", prepare).parse(command[4:])).data == wanted
