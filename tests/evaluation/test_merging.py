"""Merging: what has no merged form, and a merge that moves the logits; merged runs themselves: test_tuned_run."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import MeshConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import merging
from chinchilla_jax.model import adapted
from chinchilla_jax.model.weights import LowRank
from chinchilla_jax.parallel import mesh as meshes
from tests import tiny

MODEL = tiny.MODERN


def loaded(params):
    mesh = meshes.build(MeshConfig(), jax.devices()[:1])
    return SimpleNamespace(params=params, program=SimpleNamespace(config=SimpleNamespace(model=MODEL), mesh=mesh))


def test_a_head_and_a_soft_prompt_have_no_place_in_a_plain_model():
    table = np.ones((4, 2), np.float32)
    with pytest.raises(UserError, match="head of its own"):
        merging.whole(loaded({"heads": {}, "embed": {"table": table}}))
    with pytest.raises(UserError, match="a soft prompt has no merged form"):
        merging.whole(loaded({"embed": {"table": adapted.Prompt(table, np.ones((3, 2), np.float32))}}))


def test_a_merge_is_measured_and_one_that_moves_logits_is_refused(monkeypatch):
    params = tiny.spiced(MODEL)
    query = params["blocks"]["attention"]["query"]
    draw = np.random.default_rng(0)
    a, b = (jnp.asarray(draw.standard_normal(shape), jnp.float32) for shape in ((2, 20, 3), (2, 3, 4, 6)))
    query["kernel"] = LowRank(query["kernel"].at[0].set(0), a, b, None, 0.5, 0.0)
    plain, found = merging.whole(loaded(params))
    expected = query["kernel"].kernel + 0.5 * np.einsum("nir,nrhk->nihk", a, b)
    np.testing.assert_allclose(plain["blocks"]["attention"]["query"]["kernel"], expected, atol=1e-5)
    assert found["filled_zeros"] == query["kernel"].kernel[0].size
    assert 0 < found["largest_difference"] < 1e-5 * found["largest_logit"]
    monkeypatch.setitem(merging.TOLERANCE, "float32", found["largest_difference"] / found["largest_logit"] / 2)
    with pytest.raises(UserError, match=r"merging moves a logit of 4 probe rows .* --model\.dtype float32"):
        merging.whole(loaded(params))
