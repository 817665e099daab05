"""Packed attention: what the kernel is told of a row's documents, and what becomes of rows with too many."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import TrainConfig
from chinchilla_jax.data.batches import Batches
from chinchilla_jax.model import packed
from chinchilla_jax.model.attention import attention, reference
from chinchilla_jax.types import Batch
from tests import tiny

ROWS = np.array([[1, 1, 1, 2, 2, 3, 3, 3], [1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 2, 2, 2, 0, 0, 0], [0] * 8], np.int32)


def follows_the_contract(q, k, v, bias, mask, q_seqlen, kv_seqlen, q_offsets, kv_offsets, **how):
    """The kernel in plain NumPy terms: documents by start and length, causal inside, everything else left NaN."""
    assert bias is None and mask is None and how["mask_type"] == "causal inside" and how["qkv_layout"] == "BTNH"
    assert q_seqlen.shape[1] + 1 == q_offsets.shape[1]
    assert q_seqlen is kv_seqlen and q_offsets is kv_offsets and q_seqlen.dtype == jnp.int32 == q_offsets.dtype
    at_L = jnp.arange(q.shape[1])
    start_BM1, length_BM1 = q_offsets[:, :-1, None], q_seqlen[:, :, None]
    inside_BML = (at_L >= start_BM1) & (at_L < start_BM1 + length_BM1) & (length_BM1 > 0) & (start_BM1 >= 0)
    number_BL = jnp.where(inside_BML.any(1), inside_BML.argmax(1), -1)
    mask_BLT = (number_BL[:, :, None] == number_BL[:, None, :]) & (at_L[:, None] >= at_L)
    out = jax.nn.dot_product_attention(q, k, v, mask=mask_BLT[:, None], scale=how["scale"])
    ended = (q_offsets[:, -1] == -1).all()  # and if not, no output is a number
    return jnp.where((number_BL >= 0)[..., None, None] & ended, out, jnp.nan)


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setattr(packed, "kernel", lambda: (follows_the_contract, "causal inside"))


def heads(rows, G=4):
    draw = np.random.default_rng(1)
    return [draw.standard_normal((*rows.shape, n, 8)).astype(np.float32) for n in (4, G, G)]


@pytest.mark.parametrize("most, G", [(3, 4), (16, 2)])
def test_documents_are_walls_and_every_output_is_a_number(kernel, most, G):
    q, k, v = heads(ROWS, G)

    def last(k):
        out = attention(q, k, v, jnp.asarray(ROWS), kernels="cuda", documents=most)
        return jnp.sum(out[0, 5:]), out

    grads, found = map(np.asarray, tiny.jit(jax.grad(last, has_aux=True))(k))
    wanted = np.asarray(tiny.jit(lambda *qkv: reference(*qkv, jnp.asarray(ROWS), None))(q, k, v))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[ROWS > 0], wanted[ROWS > 0], atol=2e-6)
    assert not grads[0, :5].any() and grads[0, 5:].any()


def test_a_row_with_more_documents_is_not_silently_wrong(kernel):
    run = tiny.jit(lambda *qkv: attention(*qkv, jnp.asarray(ROWS), kernels="cuda", documents=2))
    out = np.asarray(run(*heads(ROWS)))
    assert np.isnan(out[0]).all() and np.isfinite(out[1:]).all()


def test_the_tail_of_a_row_with_too_many_documents_becomes_padding():
    tokens = np.arange(32, dtype=np.int32).reshape(4, 8)
    batch = Batch(tokens, tokens + 1, np.ones((4, 8), np.float32), ROWS, tokens % 3)
    assert packed.limited(batch, 0) is batch and packed.limited(batch, 3) is batch
    found = packed.limited(batch, 2)
    assert found.segments.tolist() == [[1, 1, 1, 2, 2, 0, 0, 0], *ROWS[1:].tolist()]
    assert found.weights[0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0] and found.weights[1:].all()
    np.testing.assert_array_equal(found.tokens[ROWS <= 2], tokens[ROWS <= 2])


@pytest.mark.parametrize("most, size", [(1, 1), (2, 4), (16, 16), (17, 64), (256, 256), (257, 0)])
def test_the_least_compiled_size_that_holds_the_text(most, size):
    assert packed.size_for(most) == size


def test_the_size_follows_a_sample_of_the_run():
    class Windows:
        def rows(self, rows_B):
            self.seen = rows_B
            segments = np.ones((len(rows_B), 4), np.int32)
            segments[-1, 2:] = 7
            return Batch(segments, segments, segments, segments, segments)

    windows = Windows()
    assert Batches(windows, TrainConfig(steps=1000, batch_size=8)).documents() == 7
    assert windows.seen[0] == 0 and windows.seen[-1] == 7999 and len(windows.seen) == 512


def test_the_private_entry_of_jax_is_what_it_was():
    """Fails with a release of JAX that changes it: read its new signature, and write `packed._packed` for it."""
    entry, _ = packed.kernel()
    assert tuple(inspect.signature(entry).parameters)[:9] == packed.NEEDS


def test_another_entry_means_masks_and_says_so(monkeypatch):
    monkeypatch.setattr(packed, "kernel", lambda: None)
    with pytest.warns(UserWarning, match="masks are used"):
        assert packed.usable(16) == 0
    assert packed.usable(1) == 1
