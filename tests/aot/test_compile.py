"""Reports of compiled steps, beside counts made by hand; the ones for TPUs need libtpu and no TPU."""

import dataclasses
import json
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from chinchilla_jax.aot import advice, compile, hlo
from chinchilla_jax.config import Config, MeshConfig, ModelConfig, ObjectiveConfig, SparsityConfig, TrainConfig
from chinchilla_jax.parallel import mesh, topology
from chinchilla_jax.scaling import counts
from chinchilla_jax.training.program import Program

needs_libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu (the tpu extra) is not installed")
ROOT = Path(__file__).resolve().parents[2]
N, D, H, K, F, V = 3, 16, 4, 6, 20, 80  # a loop over the layers needs more than one of them
MODEL = ModelConfig(layers=N, d_model=D, heads=H, head_dim=K, d_ff=F, vocab_size=V, scan_unroll=1)
TINY = Config(
    model=MODEL,
    mesh=MeshConfig(data=2, fsdp=2, tensor=2),
    train=TrainConfig(steps=200, seq_len=16, batch_size=16, microbatches=2),
)


@pytest.fixture(scope="module")
def tiny():
    return compile.report(TINY)


def test_the_classes_of_memory_make_the_whole(tiny):
    """Matrices lie on 4 of 8 devices, in parts; norm scales on each, whole; Adam keeps two numbers for each of them."""
    matrices = N * (4 * D * H * K + 3 * D * F) + V * D
    scales = N * 2 * D + D
    assert tiny["memory_parameters_bytes"] == 4 * (matrices / 4 + scales)
    assert 0 <= tiny["memory_optimizer_bytes"] - 2 * tiny["memory_parameters_bytes"] <= 64  # and its counters
    parts = [tiny[f"memory_{part}_bytes"] for part in ("parameters", "optimizer", "temporary", "other")]
    assert sum(parts) == tiny["memory_bytes"] and min(parts) >= 0
    assert tiny["fits"] is True and tiny["memory_capacity_bytes"] > tiny["memory_bytes"]


@pytest.mark.parametrize("sparsity, kept", [
    ({"method": "magnitude"}, 1), ({"method": "n_m", "pattern": "2:4"}, 5),
])  # fmt: skip
def test_masks_are_state_of_the_optimizer(sparsity, kept):
    """A byte for each weight that may be zero, and four for the dense weight beneath; each device has a fourth."""
    dense, masked = (
        compile._state(Program(dataclasses.replace(TINY, sparsity=cfg)))["memory_optimizer_bytes"]
        for cfg in (SparsityConfig(), SparsityConfig(**sparsity))
    )
    assert masked - dense == kept * N * (4 * D * H * K + 3 * D * F) / 4 + 4  # and a counter


def test_the_layers_of_every_microbatch_communicate(tiny):
    """Each of 2 x 3 turns sums over `tensor` twice going forward and gathers 7 matrices; all in loops, none whole."""
    kinds = tiny["collectives"]
    assert kinds["all-reduce"]["count"] > 2 * N * 2
    assert kinds["all-gather"]["count"] >= 2 * N * 7
    assert tiny["whole_weights_gathered"] == []
    assert tiny["step_seconds"] is None and tiny["mfu"] is None  # nobody knows what this processor can do
    assert tiny["flops_per_step"] == 16 * 16 * counts.flops_per_token(MODEL, 16)
    assert tiny["batch_tokens"] == 256 and json.dumps(tiny)


def test_a_table_that_is_gathered_whole_is_named():
    """One of a vocabulary that 8 devices cannot share by rows."""
    odd = dataclasses.replace(MODEL, vocab_size=V + 1)
    changed = dataclasses.replace(TINY, mesh=MeshConfig(data=1, fsdp=8), model=odd)
    assert compile.report(changed)["whole_weights_gathered"] == ["embed/table"]


@pytest.mark.parametrize("tied", [True, False])
def test_no_second_table_exists_where_devices_share_its_rows(tied):
    """At fsdp 8, by twice the vocabulary: what a shard adds is its own gradient in float32, and one tile of logits.

    The update holds two arrays of a gradient for a moment, as it is and clipped, when the tile is gone.
    """

    def temporary(vocabulary):
        model = dataclasses.replace(MODEL, layers=1, d_model=64, vocab_size=vocabulary, tied=tied)
        train = TrainConfig(steps=200, seq_len=32, batch_size=8)
        config = Config(model=model, mesh=MeshConfig(1, 8, 1), train=train, objective=ObjectiveConfig(tile_tokens=128))
        return Program(config).step(8).memory_analysis().temp_size_in_bytes

    shard, tile = 8192 * 64 * 4 / 8, 128 * 8192 * 4 / 8
    assert temporary(2 * 8192) - temporary(8192) <= 1.2 * shard * (1 if tied else 2) + tile


@pytest.mark.parametrize("loops, flagged", [((), True), ((2,), True), ((2, N), False)])
def test_a_weight_of_all_layers_is_named(loops, flagged):
    """(N, D, H / 2, K) on a device outside the loop over the layers is a whole weight; inside it is one layer's."""
    array = hlo.Array("bf16", (N, D, H // 2, K), True)
    one = hlo.Collective("all-gather", array.bytes, (0, 2), 1, loops, False, (array,))
    named = compile.whole_weights(Program(TINY), [one])
    assert named == (["blocks/attention/key/kernel", "blocks/attention/out/kernel", "blocks/attention/query/kernel",
                      "blocks/attention/value/kernel"] if flagged else [])  # fmt: skip


@pytest.mark.skipif(find_spec("jax_cuda13_plugin") is None, reason="needs JAX's CUDA plugin and cuDNN")
@pytest.mark.parametrize("changes, kinds", [
    ({"positions": "rope", "kv_heads": 2}, "Softmax"), ({"positions": "relative"}, "ScaleBiasSoftmax"),
    ({"positions": "rope", "remat": "full"}, "Softmax"),
])  # fmt: skip
def test_a_card_runs_as_many_forward_as_backward_kernels(changes, kinds):
    model = dataclasses.replace(MODEL, scan_unroll=0, d_model=128, heads=4, head_dim=32, d_ff=256, **changes)
    config = Config(model=model, train=TrainConfig(seq_len=640, batch_size=4))
    program = Program(config, mesh.build(MeshConfig(), topology.devices("h100:1")))
    text = program.step(4).as_text()
    calls = Counter(re.findall(r'custom_call_target="__cudnn.fmha(\w+)"', text))
    assert calls == {kinds: 3, f"{kinds}Backward": 3}
    assert ("640,640]" in text) == (model.positions == "relative")  # a mask or a bias over all pairs


@needs_libtpu
def test_a_report_for_a_tpu():
    model = dataclasses.replace(MODEL, layers=2, d_model=512, heads=4, head_dim=128, d_ff=1024, vocab_size=1024)
    train = TrainConfig(steps=200, seq_len=128, batch_size=16)
    found = compile.report(Config(model=model, mesh=MeshConfig(1, 4, 1), train=train), "v5e:2x2")
    assert found["device_kind"] == "TPU v5 lite" and found["devices"] == 4 and found["fits"]
    seconds = [found[f"step_seconds_{part}"] for part in ("compute", "memory", "network", "waiting")]
    assert min(seconds) > 0 and found["step_seconds"] >= max(seconds[0], seconds[1], seconds[3])
    # Recomputed norms and attention's masked half apart, a device's products are its share of the model's.
    assert found["flops_executed"] * 4 == pytest.approx(found["flops_per_step"], rel=0.25)
    assert (
        sum(found[f"memory_{p}_bytes"] for p in ("parameters", "optimizer", "temporary", "other"))
        == (found["memory_bytes"])
    )


@needs_libtpu
@pytest.mark.parametrize("name, kernels", [("v5e:2x2", 2), ("v4:2x2x1", 0)])
def test_scores_of_relative_positions_stay_on_a_tpu_that_can_turn_rows(name, kernels):
    """One kernel forward and one backward in the loop over the layers, and no array of the scores' size."""
    model = dataclasses.replace(MODEL, positions="relative", d_model=256, heads=2, head_dim=128, d_ff=512)
    config = Config(model=model, mesh=MeshConfig(1, 4, 1), train=TrainConfig(steps=200, seq_len=512, batch_size=8))
    text = Program(config, mesh.build(config.mesh, topology.devices(name))).step(8).as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == kernels
    assert bool(re.search(r"\[2,2,1,512,512\]|\[2,2,512,512\]", text)) is (kernels == 0)


@needs_libtpu
def test_a_step_that_a_tpu_has_no_room_for():
    model = dataclasses.replace(MODEL, layers=1, d_model=512, heads=4, head_dim=128, d_ff=4096, vocab_size=1024)
    train = TrainConfig(steps=200, seq_len=1024, batch_size=8192)
    found = compile.report(Config(model=model, mesh=MeshConfig(1, 4, 1), train=train), "v5e:2x2")
    assert found["fits"] is False and found["memory_bytes"] > found["memory_capacity_bytes"]
    assert "--train.microbatches" in found["advice"] and "does not fit" in advice.table(found)
