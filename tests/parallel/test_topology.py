"""Names of devices that are not here: how many cards to a machine, and mistakes in one line."""

from importlib.util import find_spec

import pytest
from jax._src.cudnn import fused_attention_stablehlo

from chinchilla_jax.config import MeshConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.parallel import mesh, topology

needs_libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu (the tpu extra) is not installed")


@pytest.fixture
def asked(monkeypatch):
    """What JAX is asked for."""
    seen = {}

    class Slice:
        devices = ("one", "two")

    monkeypatch.setattr(topology.topologies, "get_topology_desc", lambda **how: seen.update(how) or Slice())
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", None)  # set back by monkeypatch
    return seen


@pytest.mark.parametrize("name, shape", [("h100:8", "1x1x8"), ("h200:1", "1x1x1"), ("h100:64", "1x8x8")])
def test_cards_stand_eight_to_a_machine(asked, name, shape):
    assert topology.devices(name) == ["one", "two"] and asked["topology"] == shape
    assert asked["platform"] == "cuda" and f'"NVIDIA {name[:4].upper()}' in asked["target_config"]
    assert "{{" not in asked["target_config"] and "{memory}" not in asked["target_config"]
    hopper = fused_attention_stablehlo.check_compute_capability
    assert hopper("9.0") and not hopper("10.0")


def test_slices_are_named_as_libtpu_does(asked):
    topology.devices("v4:2x2x4")
    assert asked == {"platform": "tpu", "topology_name": "v4:2x2x4", "chip_config_name": "megacore"}
    assert topology.devices("v5e:4x4") and asked["topology_name"] == "v5e:4x4"


@pytest.mark.parametrize("name, said", [
    ("h100:", "how many cards"), ("h100", "how many cards"), ("h100:0", "how many cards"), ("h200:-8", "how many"),
    ("h100:12", "a multiple of 8"),
])  # fmt: skip
def test_a_wrong_number_of_cards_is_refused(asked, name, said):
    with pytest.raises(UserError, match=said):
        topology.devices(name)
    assert not asked


@pytest.mark.parametrize(
    "name, extra", [("h100:8", r"cuda extra \(jax\[cuda13\]\)"), ("v9:2x2", r"tpu extra \(libtpu\)")]
)
def test_what_jax_does_not_know_names_what_to_install(asked, monkeypatch, name, extra):
    def unknown(**how):
        raise RuntimeError("no such plug-in\nand a long story")

    monkeypatch.setattr(topology.topologies, "get_topology_desc", unknown)
    with pytest.raises(UserError, match=f"^--topology {name}: no such plug-in; .*{extra}$"):
        topology.devices(name)


@needs_libtpu
def test_slices_of_tpus():
    assert len(topology.devices("v4:2x2x2")) == 8  # chips; each has two cores that work as one
    assert mesh.build(MeshConfig(2, 16, 2), topology.devices("v5p:4x4x4")).shape == {"data": 2, "fsdp": 16, "tensor": 2}
    with pytest.raises(UserError, match="name a slice"):
        topology.devices("v99:2x2")


@pytest.mark.parametrize("name, words", [("h100:0", "how many"), ("h100:12", "multiple of 8"), ("h100", "how many")])
def test_cards_that_cannot_be(name, words):
    with pytest.raises(UserError, match=words):
        topology.devices(name)


@pytest.mark.skipif(find_spec("jax_cuda13_plugin") is not None, reason="the CUDA plugin is there")
def test_cards_without_the_plugin_are_refused_with_the_fix():
    with pytest.raises(UserError, match="cuda extra"):
        topology.devices("h100:8")
