"""Gradients of matrices that multiply in bfloat16: sums in float32, over tokens, microbatches and devices."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from chinchilla_jax.config import MeshConfig
from chinchilla_jax.model import linear, transformer
from chinchilla_jax.model.masters import mastered
from chinchilla_jax.parallel import mesh as meshes
from tests import tiny

DRAW = np.random.default_rng(3)
W = jnp.asarray(DRAW.normal(size=(6, 4, 3)), jnp.float32)
X = jnp.asarray(DRAW.normal(size=(64, 9, 6)), jnp.bfloat16)
DY = jnp.asarray(DRAW.normal(size=(64, 9, 4, 3)), jnp.bfloat16)


def product(w, x):
    return jnp.sum((linear.dense(x, w, "reference") * DY).astype(jnp.float32))


def test_both_gradients_of_a_product_against_float64():
    dw, dx = tiny.jit(jax.grad(lambda w, x: product(mastered(w, jnp.bfloat16), x), (0, 1)))(W, X)
    rounded = tiny.jit(jax.grad(lambda w: product(w.astype(jnp.bfloat16), X)))(W)
    exact = np.einsum("tld,tlab->dab", *(np.asarray(a, np.float64) for a in (X, DY)))
    assert dw.dtype == jnp.float32 and tiny.worst(dw, exact) < 2e-6 < 5e-4 < tiny.worst(rounded, exact)
    plain = tiny.jit(jax.grad(lambda x: product(W.astype(jnp.bfloat16), x)))(X)
    assert dx.dtype == jnp.bfloat16 and np.array_equal(dx, plain)


def test_joined_they_give_what_they_give_apart():
    def several(ws, kernels):
        layers = [linear.Affine(mastered(w, jnp.bfloat16)) for w in ws]
        ys = linear.side_by_side(X, layers, kernels)
        return sum(jnp.sum((y * DY[..., : y.shape[-2], :]).astype(jnp.float32)) for y in ys)

    ws = [W, W[:, :2] + 1]
    run = tiny.jit(jax.grad(several), static_argnums=1)
    joined, apart = (run(ws, kernels) for kernels in ("cuda", "reference"))
    assert tiny.worst(joined, apart) < 1e-6 and joined[1].shape == (6, 2, 3)


def test_over_devices_no_matrix_is_summed_in_bfloat16(tmp_path):
    """By the program as it is partitioned: later a CPU, which has no bfloat16, sums everything in float32."""
    cfg = dataclasses.replace(tiny.MODERN, dtype="bfloat16")
    batch = tiny.packed([[30]] * 8, 32, 61)
    mesh = meshes.build(MeshConfig(data=2, fsdp=4))
    whole, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (("data", "fsdp"),)))

    def gradients(params, batch):
        loss = lambda params: jnp.sum(transformer.apply(params, batch, cfg).astype(jnp.float32) ** 3)  # noqa: E731
        return jax.grad(loss)(params)

    with jax.set_mesh(mesh):
        lowered = jax.jit(gradients, in_shardings=(whole, rows), out_shardings=whole).lower(tiny.init(cfg), batch)
        lowered.compile({"xla_dump_to": str(tmp_path), "xla_dump_hlo_pass_re": "spmd-partitioning", **tiny.QUICK})
    [path] = tmp_path.glob("*after_spmd-partitioning*.txt")
    sums = re.findall(r"= (\w+)\[([\d,]*)\]\S* all-reduce\(", path.read_text())
    kinds = {kind for kind, shape in sums if shape.count(",") >= 1}
    assert kinds == {"f32"}, sums
