"""Programs read from their text: every count beside one made by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from chinchilla_jax.aot import hlo


def compiled(body, shape, spec, out):
    """The text of `body` over eight devices, a shard at a time."""
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    mapped = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=out, check_vma=False)
    return hlo.parse(jax.jit(mapped).lower(jax.ShapeDtypeStruct(shape, jnp.float32)).compile().as_text())


def times(turns, body, x):
    """`body` so many times, in a loop that is not unrolled."""
    return jax.lax.scan(lambda x, _: (body(x), None), x, None, length=turns)[0]


@pytest.mark.parametrize(
    "body, kind, count, whole, sent",
    [
        (lambda x: times(5, lambda x: jnp.sin(jax.lax.psum(x, "a")), x), "all-reduce", 5, 48, 2 * 48 * 3 / 4),
        (lambda x: jax.lax.all_gather(x, "a"), "all-gather", 1, 4 * 48, 4 * 48 * 3 / 4),
        (lambda x: jax.lax.psum_scatter(x.reshape(4, 3), "a"), "reduce-scatter", 1, 48, 48 * 3 / 4),
        (
            lambda x: times(3, lambda x: times(7, lambda x: jnp.sin(jax.lax.psum(x, "b")), x), x),
            "all-reduce", 21, 48, 2 * 48 / 2,
        ),
        (lambda x: jax.lax.ppermute(x, "b", [(0, 1), (1, 0)]), "collective-permute", 1, 48, 48),
        (lambda x: jax.lax.all_to_all(x.reshape(4, 3), "a", 0, 0), "all-to-all", 1, 48, 48 * 3 / 4),
    ],
)  # fmt: skip
def test_communication_is_counted_with_its_loops(body, kind, count, whole, sent):
    """A shard is f32[12], 48 bytes; `whole` and `sent` are what a ring of 4 or 2 has to move."""
    found = hlo.collectives(compiled(lambda x: body(x).ravel(), (96,), P(("a", "b")), P(("a", "b"))))
    assert {one.kind for one in found} == {kind}
    assert sum(one.times for one in found) == count
    assert sum(one.times * one.bytes for one in found) == count * whole
    assert sum(one.times * one.sent for one in found) == pytest.approx(count * sent)


def test_the_groups_of_chips():
    """Along `a` of a mesh of 4 x 2: 0, 2, 4, 6; in each of the ways that XLA writes them."""
    found = hlo.collectives(compiled(lambda x: jax.lax.psum(x, "a"), (96,), P(("a", "b")), P("b")))
    assert [one.group for one in found] == [(0, 2, 4, 6)]
    for text in (
        "replica_groups={{0,2,4,6},{1,3,5,7}}, x",
        "replica_groups=[2,4]<=[4,2]T(1,0), x",
        "replica_groups=mesh['a'=4,'b'=2] {'a'}, x",
    ):
        assert hlo._group(text) == (0, 2, 4, 6)
    assert hlo._group("replica_groups=[4,2]<=[8], x") == (0, 1)


# Written in the manner of a TPU's compiler: a product is a convolution, a scatter an all-reduce fused with its slice, a
# gather that waits for nobody is cut into pieces of one channel, and a loop says its turns by its condition alone.
TPU = """HloModule step, is_scheduled=true

%cut (input.1: bf16[64,8]) -> bf16[16,8] {
  %input.1 = bf16[64,8]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.1 = bf16[64,8]{1,0} all-reduce(%input.1), channel_id=3, replica_groups={{0,1,2,3}}, to_apply=%add
  %zero.1 = s32[]{:T(128)} constant(0)
  ROOT %dynamic-slice.1 = bf16[16,8]{1,0} dynamic-slice(%all-reduce.1, %zero.1, %zero.1), dynamic_slice_sizes={16,8}
}

%piece.1 (p.1: bf16[16,8]) -> bf16[64,8] {
  %p.1 = bf16[16,8]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[64,8]{1,0} all-gather(%p.1), channel_id=9, replica_groups={{0,1,2,3}}, dimensions={0}
}

%piece.2 (p.2: bf16[16,8]) -> bf16[64,8] {
  %p.2 = bf16[16,8]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[64,8]{1,0} all-gather(%p.2), channel_id=9, replica_groups={{0,1,2,3}}, dimensions={0}
}

%update (p.3: f32[80,1000], p.4: f32[1,1000], p.5: s32[]) -> f32[80,1000] {
  %p.3 = f32[80,1000]{1,0} parameter(0)
  %p.4 = f32[1,1000]{1,0} parameter(1)
  %p.5 = s32[] parameter(2)
  %zero.2 = s32[]{:T(128)} constant(0)
  ROOT %dynamic-update-slice.1 = f32[80,1000]{1,0} dynamic-update-slice(%p.3, %p.4, %p.5, %zero.2)
}

%body (state.1: (s32[], f32[80,1000])) -> (s32[], f32[80,1000]) {
  %state.1 = (s32[]{:T(128)}, f32[80,1000]{1,0:T(8,128)}) parameter(0)
  %at = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %kept = f32[80,1000]{1,0:T(8,128)} get-tuple-element(%state.1), index=1
  %row = f32[1,1000]{1,0:T(8,128)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %written = f32[80,1000]{1,0:T(8,128)} fusion(%kept, %row, %at), kind=kLoop, calls=%update
  %whole.1 = bf16[64,8]{1,0} fusion(%kept), kind=kCustom, calls=%piece.1
  %whole.2 = bf16[64,8]{1,0} fusion(%kept), kind=kCustom, calls=%piece.2
  %part = bf16[16,8]{1,0} fusion(%whole.2), kind=kCustom, calls=%cut
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[80,1000]{1,0:T(8,128)}) tuple(%at, %written)
}

%condition (state.2: (s32[], f32[80,1000])) -> pred[] {
  %constant.80 = s32[]{:T(128)} constant(80)
  %state.2 = (s32[]{:T(128)}, f32[80,1000]{1,0:T(8,128)}) parameter(0)
  %at.2 = s32[]{:T(128)} get-tuple-element(%state.2), index=0
  ROOT %lt = pred[]{:T(512)} compare(%at.2, %constant.80), direction=LT
}

ENTRY %main (x: bf16[8192,1,2048], w: bf16[64,128,8192], start: (s32[], f32[80,1000])) -> bf16[2048,64,128] {
  %x = bf16[8192,1,2048]{2,1,0} parameter(0)
  %w = bf16[64,128,8192]{2,1,0} parameter(1)
  %start = (s32[]{:T(128)}, f32[80,1000]{1,0:T(8,128)}) parameter(2)
  %while.1 = (s32[]{:T(128)}, f32[80,1000]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  ROOT %o = bf16[2048,64,128] convolution(%x, %w), window={size=64 pad=63_63 rhs_reversal=1}, dim_labels=f0b_0oi->b0f
}
"""


def test_the_ways_of_a_tpu():
    found = {one.kind: one for one in hlo.collectives(hlo.parse(TPU))}
    assert found.keys() == {"all-gather", "reduce-scatter"}
    gather, scatter = found["all-gather"], found["reduce-scatter"]
    assert (gather.times, gather.bytes, gather.asynchronous) == (80, 2 * 64 * 8, True)
    assert (scatter.times, scatter.bytes, scatter.sent) == (80, 2 * 64 * 8, 2 * 64 * 8 * 3 / 4)
    assert gather.loops == (80,) and gather.gathers[0].sizes == (64, 8) and not scatter.gathers


@pytest.mark.parametrize("added, turns", [(1, 80), (2, 40), (3, 27)])
def test_a_loop_counts_by_what_it_adds(added, turns):
    more = f"%more = s32[] constant({added})\n  %next = s32[] add(%at, %more)\n  ROOT %tuple.1"
    text = TPU.replace("ROOT %tuple.1", more).replace("tuple(%at, %written)", "tuple(%next, %written)")
    assert {one.times for one in hlo.collectives(hlo.parse(text))} == {turns}


def test_a_loop_that_tells_nothing_counts_once():
    program = hlo.parse(TPU.replace("constant(80)", "parameter(1)"))
    assert {one.times for one in hlo.collectives(program)} == {1}
