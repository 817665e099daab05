"""Weights in several files: the index and the files must be whole and agree."""

import json
import shutil

import pytest

from tests.interop.damage import INDEX, Q, cut, refused


def index(folder, change):
    """Change the table of shards."""
    path = folder / INDEX
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


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


@pytest.mark.parametrize("case", SHARDED)
def test_many_files(case, whole, tmp_path):
    damage, word = SHARDED[case]
    source = shutil.copytree(whole / "sharded", tmp_path / "source")
    damage(source)
    refused(source, tmp_path, word)
