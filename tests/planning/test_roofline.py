"""Step time and memory by formula, beside programs that were compiled."""

import json

import pytest

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model.presets import preset
from chinchilla_jax.planning import roofline
from tests.runs import ROOT

MODEL = ModelConfig(layers=3, d_model=16, heads=4, head_dim=6, d_ff=20, vocab_size=80)


def test_the_formulas_come_near_the_compiled_programs():
    """Chinchilla 70B on the slices of docs/aot.json: memory within 15 %, time within a third."""
    for found in json.loads((ROOT / "docs" / "aot.json").read_text()):
        axes, model = found["mesh"], preset("chinchilla-70b")
        guess = roofline.roofline(
            model,
            found["batch_tokens"],
            2048,
            found["devices"],
            found["topology"].split(":")[0],
            fsdp=axes["fsdp"],
            tensor=axes["tensor"],
            microbatches=found["microbatches"],
        )
        assert guess["memory_bytes"] == pytest.approx(found["memory_bytes"], rel=0.15)
        assert guess["fits"] == found["fits"]
        if found["step_seconds"]:
            assert guess["step_seconds"] == pytest.approx(found["step_seconds"], rel=0.33)


def test_the_formulas_refuse_what_they_do_not_know():
    with pytest.raises(UserError, match="known are"):
        roofline.roofline(MODEL, 256, 16, 8, "v99")
    with pytest.raises(UserError, match="do not divide"):
        roofline.roofline(MODEL, 256, 16, 8, "v5p", fsdp=3)
