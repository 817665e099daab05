"""What is exactly zero: when it is reported, and the bytes on the disk."""

from types import SimpleNamespace

import numpy as np

from chinchilla_jax.config import Config, replace
from chinchilla_jax.evaluation import density
from chinchilla_jax.optim.sparsefile import FILE


def test_only_a_run_that_makes_zeros_reports_them():
    """Of what is evaluated, at every validation and nothing but the three figures that are of the model."""
    kernel = np.ones((2, 4, 4), np.float32)
    kernel[0, :2] = 0
    params = {"blocks": {"mlp": {"up": {"kernel": kernel}}}}
    program = SimpleNamespace(config=Config(), evaluated=lambda state: params)
    assert density.hooks(program) == []
    program.config = replace(Config(), {"sparsity.method": "magnitude", "train.eval_every": 7})
    [hook] = density.hooks(program)
    assert hook.every == 7 and hook.run("state", None) == {
        "density": 0.75, "zeros": 8, "densities": {"blocks/mlp/up/kernel": [0.5, 1.0]}
    }  # fmt: skip


def test_a_packed_file_stands_before_any_checkpoint(tmp_path):
    for name, size in (("checkpoints/3/default/params/d/x", 100), ("checkpoints/3/manifest.json", 20)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "checkpoints/4").mkdir()
    assert density.stored_bytes(tmp_path, 3) == 100 and density.stored_bytes(tmp_path, 4) == 0
    (tmp_path / FILE).write_bytes(bytes(7))
    assert density.stored_bytes(tmp_path, 3) == 7
