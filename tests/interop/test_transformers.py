"""transformers itself: its random models come in, ours are loaded by it, and nothing is left over or changed."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from chinchilla_jax.interop import heads
from tests import runs
from tests.interop import folders
from tests.interop.test_imported import IDS_BL, imported, our_logits

torch = pytest.importorskip("torch", reason="torch and transformers are in the parity environment")
transformers = pytest.importorskip("transformers")

WAVES = {"rope_type": "llama3", "rope_theta": 300.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 32}  # fmt: skip
SIZES = {"vocab_size": 320, "max_position_embeddings": 128}
SHAPES = {
    "llama-tied": ("llama", {"hidden_size": 96, "intermediate_size": 80, "num_hidden_layers": 3,
                             "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32,
                             "tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "llama-waves": ("llama", {"hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2,
                              "num_attention_heads": 4, "num_key_value_heads": 1, "rope_parameters": WAVES}),
    "llama-biases": ("llama", {"hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2,
                               "num_attention_heads": 3, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {"hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 2,
                            "num_attention_heads": 4, "num_key_value_heads": 4, "sliding_window": 64}),
    "mistral-narrow": ("mistral", {"hidden_size": 50, "intermediate_size": 30, "num_hidden_layers": 1, "head_dim": 24,
                                   "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": None,
                                   "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "smollm": ("llama", {"hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 9,
                         "num_key_value_heads": 3, "tie_word_embeddings": True,
                         "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}),
    "qwen2": ("qwen2", {"hidden_size": 56, "intermediate_size": 88, "num_hidden_layers": 2, "num_attention_heads": 7,
                        "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen2-untied": ("qwen2", {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
                               "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
                               "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("qwen3", {"hidden_size": 60, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4,
                        "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-biases": ("qwen3", {"hidden_size": 36, "intermediate_size": 44, "num_hidden_layers": 2, "head_dim": 8,
                               "num_attention_heads": 3, "num_key_value_heads": 3, "attention_bias": True}),
    "gemma": ("gemma", {"hidden_size": 44, "intermediate_size": 68, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "num_key_value_heads": 1, "head_dim": 32}),
    "gemma-untied": ("gemma", {"hidden_size": 28, "intermediate_size": 52, "num_hidden_layers": 3,
                               "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16,
                               "tie_word_embeddings": False}),
}  # fmt: skip
ZERO = ("o_proj.bias", "down_proj.bias")


def random_model(kind: str, sizes: dict, ending: str = "CausalLM"):
    """A model of transformers; norms and biases are random too, but for the biases that ours lacks."""
    torch.manual_seed(0)
    auto = getattr(transformers, f"AutoModelFor{ending}")
    model = auto.from_config(transformers.AutoConfig.for_model(kind, **SIZES, **sizes))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(p + 0.2 * torch.randn_like(p) if "norm" in name or name.endswith("bias") else 5 * p)
            p.mul_(not name.endswith(ZERO))
    return model.eval()


def theirs(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(IDS_BL.astype(np.int64))).logits.numpy()


def close(found, expected) -> bool:
    return np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max() + 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back(shape, tmp_path):
    kind, sizes = SHAPES[shape]
    model, source = random_model(kind, sizes), tmp_path / "source"
    model.save_pretrained(source)
    folders.tokenizer_of(source)
    loaded = imported(source, tmp_path / "run")
    found = our_logits(loaded.program.config.model, loaded.params)
    assert close(found, theirs(model)) and (found.argmax(-1) == theirs(model).argmax(-1)).all()

    small = {"shard-size": 1e-4} if shape == "llama-tied" else {}
    code, said = runs.call("export", **{"run-dir": tmp_path / "run", "out": tmp_path / "out", **small})
    assert code == 0, said
    again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    assert type(again) is type(model)
    assert close(theirs(again.eval()), theirs(model))
    before, after = weights(source), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


HEADED = (("llama", "labels"), ("llama", "tags"), ("llama", "spans"), ("mistral", "labels"), ("mistral", "spans"),
          ("qwen2", "tags"), ("qwen2", "spans"), ("qwen3", "labels"), ("gemma", "tags"))  # fmt: skip


@pytest.mark.parametrize(("kind", "head"), HEADED)
def test_a_head_there_and_back(kind, head, tmp_path):
    ending, shape = heads.HEADS[head].ending.removeprefix("For"), SHAPES["smollm" if kind == "llama" else kind][1]
    names = {"id2label": {0: "O", 1: "B-sea", 2: "I-sea"}} if head != "spans" else {}
    model, source = random_model(kind, {**shape, **names, "pad_token_id": 299}, ending), tmp_path / "source"
    model.save_pretrained(source)
    folders.tokenizer_of(source)
    loaded = imported(source, tmp_path / "run")
    assert loaded.program.config.task.labels == tuple(names.get("id2label", {}).values())
    head_of = loaded.params["heads"][head]
    found = our_logits(loaded.program.config.model, loaded.params | {"unembed": {"table": head_of["kernel"]}})
    found = found[:, -1] if head == "labels" else found + np.asarray(head_of["bias"])
    assert close(found, scores(model))
    code, said = runs.call("export", **{"run-dir": tmp_path / "run", "out": tmp_path / "out"})
    assert code == 0, said
    auto = getattr(transformers, f"AutoModelFor{ending}")
    again, report = auto.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()) and type(again) is type(model), report
    assert close(scores(again.eval()), scores(model)) and again.config.id2label == model.config.id2label
    before, after = weights(source), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def scores(model) -> np.ndarray:
    """What a model with a head says."""
    with torch.no_grad():
        found = model(torch.tensor(IDS_BL.astype(np.int64)))
    return (
        torch.stack([found.start_logits, found.end_logits], -1) if "start_logits" in found else found.logits
    ).numpy()


def weights(folder) -> dict:
    """All tensors of a folder."""
    return {name: x for path in folder.glob("*.safetensors") for name, x in load_file(path).items()}
