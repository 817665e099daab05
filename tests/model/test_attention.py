"""Attention paths against the reference, and the reference's own pieces against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.model import attention as room
from chinchilla_jax.model.attention import Relative, blocked, reference, skew
from tests import tiny


@pytest.mark.parametrize("n, width", [(1, 1), (1, 5), (4, 4), (3, 7), (7, 7)])
def test_skew_moves_distances_to_keys(n, width):
    scores = np.random.default_rng(0).standard_normal((2, 3, n, width))
    found = np.asarray(skew(jnp.asarray(scores)))
    assert found.shape == scores.shape
    for row in range(n):
        i = width - n + row
        for j in range(i + 1):
            np.testing.assert_array_equal(found[..., row, j], scores[..., row, i - j].astype(np.float32))


def inputs(L: int, H: int, G: int, relative: bool):
    draw = np.random.default_rng(L)
    q, k, v, qr = (draw.standard_normal((2, L, n, 6)).astype(np.float32) for n in (H, G, G, H))
    term = Relative(qr, draw.standard_normal((L, H, 6)).astype(np.float32)) if relative else None
    segments = np.array([np.arange(L) * 3 // L + 1, np.ones(L)], np.int32)
    segments[1, L - L // 5 :] = 0
    return (q, k, v, term), segments


def loops(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative=None, blocks_BL=None):
    """Attention one query and one key at a time."""
    B, L, H, K = q_BLHK.shape
    blocks_BL = np.zeros_like(segments_BL) if blocks_BL is None else blocks_BL
    out = np.zeros_like(q_BLHK)
    for b, i, h in np.ndindex(B, L, H):
        g = h * k_BLGK.shape[2] // H
        same = [j for j in range(L) if segments_BL[b, j] == segments_BL[b, i]]
        keys = [j for j in same if j <= i or blocks_BL[b, i] == blocks_BL[b, j] > 0]
        s = np.array([q_BLHK[b, i, h] @ k_BLGK[b, j, g] for j in keys])
        if relative is not None:
            s += [relative.qr_BLHK[b, i, h] @ relative.r_THK[i - j, h] for j in keys]
        p = np.exp(s / np.sqrt(K) - (s / np.sqrt(K)).max())
        out[b, i, h] = sum(w * v_BLGK[b, j, g] for w, j in zip(p / p.sum(), keys))
    return out


def cpu(q_BLHK, k_BLGK, v_BLGK, segments_BL, relative):
    return room.attention(q_BLHK, k_BLGK, v_BLGK, segments_BL, kernels="cpu", relative=relative)


each_kind = pytest.mark.parametrize("relative", [False, True], ids=["rope", "relative"])


@each_kind
@pytest.mark.parametrize("H, G", [(3, 3), (4, 2), (4, 1)])
def test_the_reference_is_the_formula(H, G, relative):
    (q, k, v, term), segments = inputs(10, H, G, relative)
    np.testing.assert_allclose(reference(q, k, v, segments, term), loops(q, k, v, segments, term), atol=2e-6)


def gradients(path, values, segments):
    @tiny.jit
    def run(values):
        def loss(values):
            out = path(*values[:3], segments, values[3])
            return jnp.sum(out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)), out

        return jax.value_and_grad(loss, has_aux=True)(values)

    return run(values)


@each_kind
@pytest.mark.parametrize("L, path", [(37, blocked(16)), (32, blocked(16)), (150, cpu), (37, cpu), (3, cpu)])
def test_blocks_equal_the_reference(L, path, relative):
    values, segments = inputs(L, 4, 2, relative)
    assert tiny.worst(gradients(path, values, segments), gradients(reference, values, segments)) < 1e-5


@each_kind
@pytest.mark.filterwarnings("error")
def test_bfloat16_gradients_keep_their_type_and_stay_close(relative):
    values, segments = inputs(37, 4, 2, relative)
    (_, out), grads = gradients(cpu, jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), values), segments)
    assert {x.dtype for x in (out, *jax.tree.leaves(grads))} == {jnp.dtype(jnp.bfloat16)}
    (_, exact), expected = gradients(reference, values, segments)
    assert tiny.worst((out, grads), (exact, expected)) < 0.05


def test_padding_alone_stays_finite():
    (q, k, v, _), segments = inputs(10, 4, 2, False)
    (_, out), grads = gradients(reference, (q, k, v, None), np.zeros_like(segments))
    assert all(np.isfinite(x).all() for x in (out, *grads[:3]))


def test_splash_equals_the_reference(monkeypatch):
    """The TPU's kernel, interpreted on the CPU: scale, order of heads and segments are ours to get right."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel

    monkeypatch.setattr(kernel, "make_splash_mha", functools.partial(kernel.make_splash_mha, interpret=True))
    draw = np.random.default_rng(0)
    q, k, v = (draw.standard_normal((2, 256, n, 128)).astype(np.float32) for n in (2, 1, 1))
    segments = np.array([np.arange(256) * 3 // 256 + 1, np.ones(256)], np.int32)
    ours, theirs = (gradients(path, (q, k, v, None), segments) for path in (room.splash, reference))
    assert tiny.worst(ours, theirs) < 1e-4


def test_cudnns_bias_is_the_position_term(monkeypatch):
    (q, k, v, term), segments = inputs(24, 4, 2, True)
    on_a_card = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, implementation, **how: on_a_card(*a, **how))

    def both(path):
        def summed(arrays):
            out = path(*arrays[:3], segments, Relative(*arrays[3:]))
            return jnp.sum(jnp.sin(out) * (segments > 0)[..., None, None]), out

        return tiny.jit(jax.grad(summed, has_aux=True))((q, k, v, *term))

    (found, out), (wanted, exact) = both(room.cudnn_relative), both(reference)
    np.testing.assert_allclose(out[0], exact[0], atol=2e-6)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, atol=5e-6)


@pytest.mark.parametrize("path", [room.BLOCK_PATHS["reference"], room.either_way(4)], ids=["whole", "by queries"])
def test_blocks_that_are_read_in_both_directions_equal_loops(path):
    draw = np.random.default_rng(0)
    q, k, v = (draw.standard_normal((2, 11, n, 6)).astype(np.float32) for n in (4, 2, 2))
    segments = np.array([[1] * 6 + [2] * 5, [1] * 9 + [0] * 2], np.int32)
    blocks = np.array([[1, 1, 0, 2, 2, 0, 1, 1, 1, 0, 0], [0, 3, 3, 3, 0, 0, 1, 1, 0, 0, 0]], np.int32)
    expected = loops(q, k, v, segments, blocks_BL=blocks)
    np.testing.assert_allclose(tiny.jit(path)(q, k, v, segments, blocks), expected, atol=2e-6)
