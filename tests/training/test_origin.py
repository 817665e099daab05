"""Where weights came from, through runs that start from one another."""

from types import SimpleNamespace

import pytest

from chinchilla_jax.commands import checks
from chinchilla_jax.config import Config
from chinchilla_jax.errors import UserError
from chinchilla_jax.training import origin

IMPORTED = {"source": "m", "format": "hf", "architecture": "LlamaForCausalLM", "license": "mit",
            "files": {"config.json": "ab" * 32, "model.safetensors": "cd" * 32}}  # fmt: skip


def test_a_chain_of_runs(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    assert origin.read(folders[0]) == {} and origin.lines(folders[0]) == []
    origin.write(folders[0], IMPORTED)
    for n in (1, 2):
        facts = {"run": str(folders[n - 1]), "step": n, "fingerprint": "ef" * 32}
        origin.inherit(folders[n], folders[n - 1], facts)
    assert origin.read(folders[2])["license"] == "mit", "handed on"
    first = "m (hf, LlamaForCausalLM, license mit, sha256 cdcdcdcdcdcd of model.safetensors and 1 more)"
    assert origin.lines(folders[2])[-1] == first and len(origin.lines(folders[2])) == 3
    assert "at step 2, license mit, sha256 efefefefefef" in origin.lines(folders[2])[0]
    row = checks.came_from(Config(), SimpleNamespace(run_dir=str(folders[2])))
    assert row.status == "ok" and row.text.endswith(first)
    (folders[2] / "origin.json").write_text("[]")
    with pytest.raises(UserError, match=r"origin\.json"):
        origin.lines(folders[2])
