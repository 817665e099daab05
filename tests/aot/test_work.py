"""What a program makes a chip do: products and memory traffic, beside counts made by hand."""

from functools import partial

import jax
import jax.numpy as jnp

from chinchilla_jax.aot import hlo, work
from tests.aot.test_hlo import TPU, times


def test_products_are_counted_with_their_loops():
    """x (6, 10) times w (10, 10), in 3 x 4 turns; 2 FLOPs a multiply-add."""

    def body(x, w):
        return times(3, lambda x: times(4, lambda x: jnp.tanh(x @ w), x), x)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((6, 10), (10, 10))]
    program = hlo.parse(jax.jit(body).lower(*shapes).compile().as_text())
    assert work.measure(program, 1.0, 1e30).flops == 3 * 4 * 2 * 6 * 10 * 10


def test_a_product_that_is_a_convolution():
    """(2048, 8192) times (8192, 64 x 128): padding, which a window of 64 meets 63 times of 64, is no work."""
    assert work.measure(hlo.parse(TPU), 1.0, 1e30).flops == 2.0 * 2048 * 8192 * 64 * 128


def test_an_update_in_place_moves_only_what_it_writes():
    """A row of 4000 bytes comes from on-chip memory and goes into 320 kB; the rest of the loop is as printed."""
    program = hlo.parse(TPU)
    body = program.computations["body"]
    assert work._traffic(program, body, body["written"]) == 4000 + 4  # the row, and the index


def test_a_slice_of_a_large_array_is_all_that_is_read():
    """A scan over rows of (50, 256): each turn reads its row, not the array."""

    def body(x, rows):
        return jax.lax.scan(lambda x, row: (jnp.sin(x * row), None), x, rows)[0]

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((256,), (50, 256))]
    program = hlo.parse(jax.jit(partial(body)).lower(*shapes).compile().as_text())
    moved = work.measure(program, 1.0, 1.0).bytes
    assert 50 * 3 * 1024 <= moved <= 50 * 6 * 1024
