"""An adapter folder of peft's, written by hand: settings, tensors without their fringe shapes, and what is refused."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from chinchilla_jax.errors import UserError
from chinchilla_jax.interop.peft_read import Adapter
from tests import tiny

LAYER = "base_model.model.model.layers.0."
UP, KEY = LAYER + "mlp.up_proj.", LAYER + "self_attn.k_proj."
DELTA = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0}
ADALORA = {"peft_type": "ADALORA", "init_r": 4, "target_r": 2, "lora_alpha": 8, "lora_dropout": 0.0, "beta1": 0.85,
           "orth_reg_weight": 0.5}  # fmt: skip
DRAW = np.random.default_rng(0)


def random(*shape) -> np.ndarray:
    return DRAW.standard_normal(shape).astype(np.float32)


def adapter(folder, told, tensors, **task) -> Adapter:
    """The folder, read; with a task.json as a run of ours leaves it."""
    (folder / "adapter_config.json").write_text(json.dumps(told))
    save_file(tensors, folder / "adapter_model.safetensors")
    if task:
        (folder / "task.json").write_text(json.dumps(task))
    return Adapter(folder, "base")


def lora() -> dict[str, np.ndarray]:
    return {f"{UP}lora_A.weight": random(2, 20), f"{UP}lora_B.weight": random(28, 2)}


def test_lora(tmp_path):
    tensors = lora()
    found = adapter(tmp_path, LORA, tensors)
    assert (found.tune.method, found.tune.rank, found.tune.alpha, found.tune.targets) == ("lora", 2, 4.0, "up_proj")
    assert found.tune.base == "base" and found.task.kind == "auto"
    part = found.read(f"{UP}lora_A.weight", (slice(1, 2), slice(3, 9)))
    assert np.array_equal(part, tensors[f"{UP}lora_A.weight"][1:2, 3:9])


@pytest.mark.parametrize("flags", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_matrices_of_other_ranks_and_alphas(tmp_path, flags):
    """As peft's eva leaves them: each matrix has the product and the scale of its own, in one rank."""
    sizes = {KEY: (1, 3.0), UP: (5, 4.0), LAYER + "mlp.gate_proj.": (2, 4.0)}
    told = LORA | flags | {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}
    told |= {"rank_pattern": {"model.layers.0.self_attn.k_proj": 1, "up_proj": 5}, "alpha_pattern": {"k_proj": 3.0}}
    tensors = {f"{module}lora_A.weight": random(rank, 20) for module, (rank, _) in sizes.items()}
    tensors |= {f"{module}lora_B.weight": random(28, rank) for module, (rank, _) in sizes.items()}
    tensors |= {f"{module}lora_magnitude_vector": random(28) for module in sizes if "use_dora" in flags}
    found = adapter(tmp_path, told, tensors)
    assert found.tune.rank == 5
    for module, (rank, alpha) in sizes.items():
        (a, b), (own_a, own_b) = ([x[f"{module}lora_{k}.weight"] for k in "AB"] for x in (found.arrays, tensors))
        assert a.shape == (5, 20) and b.shape == (28, 5)
        expected = own_b @ own_a * alpha / (rank**0.5 if "use_rslora" in flags else rank)
        np.testing.assert_allclose(found.tune.scale() * b @ a, expected, rtol=1e-5, atol=1e-5)
    for gone, ranks, message in (
        ("", {"up_proj": 4, "k_proj": 1}, r"up_proj\.lora_A\.weight is \[5, 20\] and .* the rank 4"),
        ("lora_B", {"up_proj": 5, "k_proj": 1}, r"lora_B\.weight is missing and .* the rank [12]"),
    ):
        left = {name: x for name, x in tensors.items() if not gone or gone not in name}
        with pytest.raises(UserError, match=message):
            adapter(tmp_path, told | {"rank_pattern": ranks}, left)


def test_columns_of_one_are_vectors(tmp_path):
    told = {"peft_type": "IA3", "feedforward_modules": ["up_proj"]}
    with pytest.raises(UserError, match="feedforward_modules up_proj is not supported"):
        adapter(tmp_path, told, {f"{UP}ia3_l": random(1, 20)})
    found = adapter(tmp_path, told | {"feedforward_modules": []}, {f"{KEY}ia3_l": random(12, 1)})
    assert found.arrays[f"{KEY}ia3_l"].shape == (12,)


def test_triplets_of_adalora_stand_where_they_stood(tmp_path):
    """peft leaves out those that are gone; `rank_pattern` says which."""
    places = [True, False, False, True]
    small = {f"{UP}lora_A": random(2, 20), f"{UP}lora_B": random(28, 2), f"{UP}lora_E": random(2, 1)}
    told = ADALORA | {"rank_pattern": {"model.layers.0.mlp.up_proj.lora_E": places}}
    found = adapter(tmp_path, told, small)
    assert found.tune.start_rank == 4 and found.arrays[f"{UP}lora_E"].shape == (4,)
    for part, axis in (("lora_A", 0), ("lora_B", 1), ("lora_E", 0)):
        whole = found.arrays[f"{UP}{part}"]
        kept = np.compress(places, whole, axis)
        assert np.array_equal(kept.reshape(-1), small[f"{UP}{part}"].reshape(-1))
        assert not np.compress(~np.array(places), whole, axis).any()
    for broken, message in (
        ({"rank_pattern": {"model.layers.0.mlp.up_proj.lora_E": [True] * 3}}, "is no list of 4 times true or false"),
        ({"rank_pattern": {"model.layers.0.mlp.up_proj.lora_E": [True, True, True, False]}}, "rank_pattern leaves 3"),
        ({"rank_pattern": {"model.layers.0.mlp.up_proj.lora_E": 4}}, "is no list of 4 times true or false"),
        ({"rank_pattern": [1]}, r"rank_pattern is \[1\], no table"),
        ({"rank_pattern": {"model.layers.1.mlp.up_proj.lora_E": places}}, "layers.1.*lora_A is missing"),
    ):
        with pytest.raises(UserError, match=message):
            adapter(tmp_path, ADALORA | broken, small)


@pytest.mark.parametrize("tensors, message", [
    ({"base_model.model.model.embed_tokens.weight": random(5, 4)}, "embed_tokens.weight is not .*merge_and_unload"),
    ({"base_model.model.lm_head.lora_A.weight": random(2, 4)}, "lm_head.lora_A.weight is not .*merge_and_unload"),
    ({UP + "base_layer.weight": random(5, 4)}, "merge_and_unload"), ({"extra": random(2)}, "extra is not supported"),
    ({UP + "lora_A.weight": np.zeros((2, 4), np.int32)}, "holds I32; F32, F16, BF16 are read"),
])  # fmt: skip
def test_what_is_no_adapter_is_named(tmp_path, tensors, message):
    with pytest.raises(UserError, match=message):
        adapter(tmp_path, LORA, tensors)


def test_weights_of_another_kind_are_not_loaded(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match=r"has no adapter_model\.safetensors; other kinds of files are not loaded"):
        Adapter(tmp_path, "base")


def test_a_head_has_the_names_of_a_run_of_ours_or_those_of_transformers(tmp_path):
    told = LORA | {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    tensors = lora() | {"base_model.model.score.weight": random(3, 20)}
    assert adapter(tmp_path, told, tensors).task.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    for names, expected in ((["a", "b", "c"], ("a", "b", "c")), (["a", "b"], ("LABEL_0", "LABEL_1", "LABEL_2"))):
        assert adapter(tmp_path, told, tensors, labels=names, kind="labels").task.labels == expected
    assert adapter(tmp_path, told, tensors, labels=["a", "b", "c"], kind="multilabel").task.kind == "multilabel"
    with pytest.raises(UserError, match=r"score\.weight is missing"):
        adapter(tmp_path, told, lora())


def test_rows_become_what_is_added_to_the_base(tmp_path):
    """New ids follow the last row of the base without a gap."""
    told, cfg = LORA | {"trainable_token_indices": [5, 61, 62]}, tiny.CHINCHILLA
    found = adapter(tmp_path, told, lora() | {DELTA: random(3, 20)})
    assert found.pieces(cfg) == 63 and found.pieces(dataclasses.replace(cfg, vocab_size=100)) == 100
    with pytest.raises(UserError, match=r"name \[61\] and the base has 60 rows"):
        found.pieces(dataclasses.replace(cfg, vocab_size=60))
    table, whole = random(63, 20), found.arrays[DELTA].copy()
    found.part_rows(SimpleNamespace(rows=["embed/table"]), {"embed": {"table": table}})
    assert np.allclose(found.arrays[DELTA], whole - table[[5, 61, 62]])
    with pytest.raises(UserError, match="trainable_tokens_delta is missing"):
        adapter(tmp_path, told, lora()).part_rows(SimpleNamespace(rows=["embed/table"]), {"embed": {"table": table}})
