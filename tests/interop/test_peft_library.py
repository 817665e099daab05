"""peft itself: it loads the adapters that we write, and we those that it writes, with equal logits."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from chinchilla_jax.training.load import load
from tests import runs
from tests.interop import folders
from tests.interop.test_exported import exported
from tests.interop.test_imported import IDS_BL, imported, our_logits
from tests.interop.test_peft import CLASSES, METHODS, TASKS, adapters, base  # noqa: F401

torch = pytest.importorskip("torch", reason="torch, transformers and peft are in the parity environment")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
COMMON = {"task_type": "CAUSAL_LM"}
CONFIGS = {
    "lora": lambda: peft.LoraConfig(r=6, lora_alpha=9, target_modules=["q_proj", "v_proj"], **COMMON),
    "lora-all": lambda: peft.LoraConfig(r=3, target_modules="all-linear", **COMMON),
    "ranks": lambda: peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=ALL, init_lora_weights="orthogonal",
        rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 8}, alpha_pattern={"v_proj": 3}, **COMMON
    ),
    "rslora": lambda: peft.LoraConfig(r=5, lora_alpha=7, use_rslora=True, target_modules=ALL, **COMMON),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules=["gate_proj", "o_proj"], **COMMON),
    "adalora": lambda: peft.AdaLoraConfig(init_r=6, target_r=4, lora_alpha=16, total_step=10, tinit=1, tfinal=1,
                                          target_modules=ALL, **COMMON),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"],
                                  **COMMON),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=5, **COMMON),
    "rows": lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[5, 17, 2], **COMMON),
    "untied": lambda: peft.LoraConfig(
        r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [5, 17], "lm_head": [5, 17]}, **COMMON
    ),
    "untied-input": lambda: peft.LoraConfig(r=2, target_modules=["v_proj"], trainable_token_indices=[3, 2], **COMMON),
    "labelled": lambda: peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS"),
    "tagged": lambda: peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="TOKEN_CLS"),
}  # fmt: skip


def model_of(place, name: str):
    """The base of an adapter as transformers loads it."""
    kind = getattr(transformers, f"AutoModelFor{CLASSES.get(name, 'CausalLM')}")
    more = {"num_labels": len(TASKS[name].labels) or 2, "pad_token_id": 0} if name in TASKS else {}
    return kind.from_pretrained(place / ("untied_theirs" if name.startswith("untied") else "theirs"), **more).eval()


def logits(model) -> np.ndarray:
    with torch.no_grad():
        found = model(torch.tensor(IDS_BL.astype(np.int64)))
    if "start_logits" in found:
        return torch.stack([found.start_logits, found.end_logits], -1).numpy()
    return found.logits.numpy()


def ours(run_dir) -> np.ndarray:
    """Logits of pieces, tags or spans at every place, or of labels at the last one."""
    loaded = load(runs.config(run_dir), str(run_dir), whole_mesh=False)
    cfg, heads = loaded.program.config.model, loaded.params.get("heads")
    if heads is None:
        return our_logits(cfg, loaded.params)
    ((name, head),) = heads.items()
    found = our_logits(cfg, loaded.params | {"unembed": {"table": head["kernel"]}})
    return found[:, -1] if name == "labels" else found + np.asarray(head["bias"])


def close(found, expected) -> bool:
    return np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("prompt", "spanned")])
def test_ours_in_peft(method, adapters, base, tmp_path):  # noqa: F811
    exported(adapters(method), tmp_path / "out", format="peft")
    model = model_of(base, method)
    plain = logits(model)
    if method in ("labelled", "untied"):
        model.resize_token_embeddings(321)
    found = logits(peft.PeftModel.from_pretrained(model, tmp_path / "out").eval())
    assert np.abs(found[..., : plain.shape[-1]] - plain).max() > 1e-2, "the adapter has an effect"
    assert close(ours(adapters(method)), found), np.abs(ours(adapters(method)) - found).max()


def test_our_prompt_in_peft(adapters, base, tmp_path):  # noqa: F811
    exported(adapters("prompt"), tmp_path / "out", format="peft")
    found = peft.PeftModel.from_pretrained(model_of(base, ""), tmp_path / "out").get_prompt(1)[0].detach().numpy()
    run_dir = adapters("prompt")
    trained = load(runs.config(run_dir), str(run_dir), whole_mesh=False).trained
    assert np.array_equal(found, trained["adapters"]["embed"]["table"]["prompt_PD"])


@pytest.mark.parametrize("name", CONFIGS)
def test_theirs_in_ours(name, base, tmp_path):  # noqa: F811
    torch.manual_seed(1)
    model = peft.get_peft_model(model_of(base, name), CONFIGS[name]())
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * p.requires_grad * torch.randn_like(p)
    model.eval().save_pretrained(tmp_path / "theirs")
    run = base / ("untied_base" if name.startswith("untied") else "base")
    code, said = runs.call("import", str(tmp_path / "theirs"), **{"run-dir": tmp_path / "run", "base": run})
    assert code == 0, said
    if name == "prompt":
        loaded = load(runs.config(tmp_path / "run"), str(tmp_path / "run"), whole_mesh=False)
        found = loaded.trained["adapters"]["embed"]["table"]["prompt_PD"]
        assert np.array_equal(model.get_prompt(1)[0].detach().numpy(), found)
        return
    assert close(ours(tmp_path / "run"), logits(model)), np.abs(ours(tmp_path / "run") - logits(model)).max()


@pytest.mark.parametrize("scale", [1, 8])
def test_what_differs_is_rounding(scale, adapters, base, tmp_path):  # noqa: F811
    """In float64, which decides: ours is as near as peft's own float32, where logits are small and where they are not.

    `scale` multiplies the adapters' B, and so the logits' distance from the base.
    """
    exported(adapters("rslora"), tmp_path / "out", format="peft")
    model = peft.PeftModel.from_pretrained(model_of(base, ""), tmp_path / "out").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.mul_(scale if "lora_B" in name else 1)
    theirs = logits(model)
    weights = {name: x.numpy() for name, x in model.double().merge_and_unload().state_dict().items()}
    told = json.loads((base / "theirs" / "config.json").read_text())
    exact = folders.logits(told, weights, IDS_BL)
    run_dir = adapters("rslora")
    loaded = load(runs.config(run_dir), str(run_dir), whole_mesh=False)
    params = jax.tree_util.tree_map_with_path(lambda path, x: x * scale if path[-1].key == "b" else x, loaded.params)
    found = our_logits(loaded.program.config.model, params)
    far, theirs_far = (np.sqrt(np.square(x - exact).mean()) for x in (found, theirs))
    assert far <= 1.25 * theirs_far, (far, theirs_far)


def test_ia3_scales_biases_too(tmp_path):
    """A Qwen2's, both ways; those of the projection whose inputs are scaled stay."""
    folders.folder(tmp_path / "theirs", "Qwen2ForCausalLM")
    imported(tmp_path / "theirs", tmp_path / "base")
    config = peft.IA3Config(
        target_modules=["q_proj", "k_proj", "down_proj"], feedforward_modules=["down_proj"], **COMMON
    )
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    model = peft.get_peft_model(plain, config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += 0.3 * ("ia3" in name) * torch.randn_like(p)
    model.eval().save_pretrained(tmp_path / "adapter")
    code, said = runs.call(
        "import", str(tmp_path / "adapter"), **{"run-dir": tmp_path / "run", "base": tmp_path / "base"}
    )
    assert code == 0, said
    expected = logits(model)
    np.testing.assert_allclose(ours(tmp_path / "run"), expected, rtol=0, atol=1e-5 * (1 + np.abs(expected).max()))
    exported(tmp_path / "run", tmp_path / "out", format="peft")
    first, again = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("adapter", "out"))
    assert again.keys() == first.keys() and all((again[name] == first[name]).all() for name in first)
