"""Which setting to change, by rule, and the words of a report."""

import pytest

from chinchilla_jax.aot import advice

FOUND = {
    "mesh": {"data": 1, "fsdp": 8, "tensor": 2}, "microbatches": 3, "rows_per_device": 4, "remat": "projections",
    "memory_capacity_bytes": 100e9, "memory_parameters_bytes": 10e9, "memory_optimizer_bytes": 20e9,
    "memory_gradients_bytes": 10e9, "memory_temporary_bytes": 100e9, "fits": False,
}  # fmt: skip


FITS = {
    "fits": True, "memory_bytes": 60e9, "memory_temporary_bytes": 30e9,
    "step_seconds": 10.0, "step_seconds_waiting": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "--train.microbatches 6"),  # 90 GB of activations in 60: half of them will do
        ({"memory_temporary_bytes": 160e9}, "--train.microbatches 12"),
        ({"rows_per_device": 1}, "--model.remat full"),
        ({"rows_per_device": 1, "remat": "full"}, "--mesh.tensor 4"),
        ({"memory_optimizer_bytes": 75e9}, "more devices"),
        ({"memory_optimizer_bytes": 75e9, "mesh": {"data": 4, "fsdp": 8, "tensor": 2}}, "--mesh.fsdp 32"),
        (FITS, ""),
        (FITS | {"step_seconds_waiting": 5.0}, "--train.microbatches 1"),  # 20 GB of activations become 60
        (FITS | {"step_seconds_waiting": 5.0, "memory_bytes": 70e9}, "another split"),
        ({"memory_capacity_bytes": None}, ""),
    ],
)
def test_the_advice_follows_from_what_is_large(changes, words):
    said = advice.advise(FOUND | changes)
    assert words in said and bool(said) == bool(words)
