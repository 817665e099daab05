"""Every method against peft on a tiny Llama whose weights are copied: logits, gradients of the adapter, merging.

Runs where torch, transformers and peft are installed, and is skipped elsewhere.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import TuneConfig
from chinchilla_jax.finetuning.methods import recipe
from chinchilla_jax.finetuning.trees import flat, nest
from chinchilla_jax.model import transformer
from chinchilla_jax.model.stacks import whole
from chinchilla_jax.model.weights import merged
from chinchilla_jax.types import Batch
from tests import tiny

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

D, H, G, K, F, V, N = 64, 4, 2, 16, 128, 256, 3
# our projection -> theirs, inputs, outputs
PROJECTIONS = {
    "attention/query": ("self_attn.q_proj", (D,), (H, K)),
    "attention/key": ("self_attn.k_proj", (D,), (G, K)),
    "attention/value": ("self_attn.v_proj", (D,), (G, K)),
    "attention/out": ("self_attn.o_proj", (H, K), (D,)),
    "mlp/gate": ("mlp.gate_proj", (D,), (F,)),
    "mlp/up": ("mlp.up_proj", (D,), (F,)),
    "mlp/down": ("mlp.down_proj", (F,), (D,)),
}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENS = np.random.default_rng(3).integers(0, V, (2, 12)).astype(np.int32)
TARGETS = np.random.default_rng(4).integers(0, V, (2, 12)).astype(np.int32)


@functools.cache
def state() -> dict:
    """A random model's tensors."""
    torch.manual_seed(0)
    model = llama()
    return {
        name: 3 * w if "norm" not in name else w + 0.1 * torch.randn_like(w) for name, w in model.state_dict().items()
    }


def llama(tied: bool = True):
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=N, num_attention_heads=H,
        num_key_value_heads=G, head_dim=K, tie_word_embeddings=tied, rms_norm_eps=tiny.LLAMA.norm_eps,
        rope_theta=tiny.LLAMA.rope_theta, attn_implementation="eager",
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def theirs(config=None):
    """Their model with the tensors of `state`, an adapter on it if `config` says one, its own leaves perturbed."""
    model = llama()
    model.load_state_dict(state(), strict=False)
    if config is None:
        return model
    torch.manual_seed(1)
    model = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad and "tokens" not in name:
                p += 0.05 * torch.randn_like(p)
    return model.eval()


def base() -> dict:
    """The same model as ours."""
    w = {name: np.asarray(tensor) for name, tensor in state().items()}
    leaves = {"embed/table": w["model.embed_tokens.weight"], "norm/scale": w["model.norm.weight"]}

    def stacked(name):
        return np.stack([w[f"model.layers.{n}.{name}.weight"] for n in range(N)])

    for ours, (name, inward, outward) in PROJECTIONS.items():
        leaves[f"blocks/{ours}/kernel"] = stacked(name).swapaxes(1, 2).reshape(N, *inward, *outward)
    leaves["blocks/norm_attention/scale"] = stacked("input_layernorm")
    leaves["blocks/norm_mlp/scale"] = stacked("post_attention_layernorm")
    return nest({name: jnp.asarray(leaf) for name, leaf in leaves.items()})


def low_rank(read, name, inward, outward):
    a, b = read(name, "lora_A.default.weight"), read(name, "lora_B.default.weight")
    return {"a": a.swapaxes(1, 2).reshape(N, *inward, -1), "b": b.swapaxes(1, 2).reshape(N, -1, *outward)}


def decomposed(read, name, inward, outward):
    m = read(name, "lora_magnitude_vector.default.weight").reshape(N, *outward)
    return low_rank(read, name, inward, outward) | {"m": m}


def triplets(read, name, inward, outward):
    a, b, e = (read(name, f"lora_{x}.default") for x in "ABE")
    a, b = a.swapaxes(1, 2).reshape(N, *inward, -1), b.swapaxes(1, 2).reshape(N, -1, *outward)
    return {"a": a, "b": b, "e": e[..., 0]}


def scaled(read, name, inward, outward):
    return {"factors": read(name, "ia3_l.default").reshape(N, *(inward if "down" in name else outward))}


LORA = {"r": 8, "lora_alpha": 16, "task_type": "CAUSAL_LM"}
IA3 = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
ADALORA = {"init_r": 12, "target_r": 8, "lora_alpha": 24, "total_step": 100, "tinit": 5, "tfinal": 20}
CASES = {
    "lora": ({"targets": "q,v"}, lambda: peft.LoraConfig(**LORA, target_modules=["q_proj", "v_proj"]), low_rank),
    "lora ": ({}, lambda: peft.LoraConfig(**LORA, target_modules=ALL), low_rank),
    "rslora": ({}, lambda: peft.LoraConfig(**LORA, target_modules=ALL, use_rslora=True), low_rank),
    "dora": ({}, lambda: peft.LoraConfig(**LORA, target_modules=ALL, use_dora=True), decomposed),
    "ia3": ({}, lambda: peft.IA3Config(**IA3, task_type="CAUSAL_LM"), scaled),
    "adalora": (
        {"start_rank": 12},
        lambda: peft.AdaLoraConfig(**ADALORA, target_modules=ALL, task_type="CAUSAL_LM"),
        triplets,
    ),
}


def adapter(model, leaves, tune, of=lambda p: p.detach()):
    """Their adapter's tensors, or gradients, in the shape of our trained tree."""
    tensors = {name: np.asarray(of(p)) for name, p in model.named_parameters() if p.requires_grad}

    def read(name, leaf):
        return np.stack([tensors[f"base_model.model.model.layers.{n}.{name}.{leaf}"] for n in range(N)])

    found = {}
    for site in recipe(tiny.LLAMA, tune).sites:
        ours = site.name.removeprefix("blocks/").removesuffix("/kernel")
        name, inward, outward = PROJECTIONS[ours]
        found |= {
            f"adapters/{site.name}/{leaf}": jnp.asarray(x) for leaf, x in leaves(read, name, inward, outward).items()
        }
    return nest(found)


def batch(tokens=TOKENS) -> Batch:
    ones = np.ones(tokens.shape, np.int32)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    return Batch(tokens, TARGETS, ones.astype(np.float32), ones, positions)


@jax.jit
def logits(params, rows=None):
    rows = batch() if rows is None else rows
    hidden = transformer.apply(params, rows, tiny.LLAMA)
    return jnp.einsum("bld,vd->blv", hidden, transformer.unembedding(params))


def cross_entropy(scores):
    gold = jnp.take_along_axis(jax.nn.log_softmax(scores), TARGETS[..., None], -1)
    return -gold.mean()


def their_logits(model):
    return np.asarray(model(torch.tensor(TOKENS).long()).logits.detach())


def test_the_model_itself():
    np.testing.assert_allclose(logits(base()), their_logits(theirs()), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_logits_gradients_and_merging(case):
    settings, config, leaves = CASES[case]
    rank = {} if case == "ia3" else {"rank": 8}
    tune, config = TuneConfig(method=case.strip(), **rank, **settings), config()
    model, made, plain = theirs(config), recipe(tiny.LLAMA, tune), base()
    trained, frozen = adapter(model, leaves, tune), made.freeze(plain)
    params = made.join(trained, frozen)
    expected = their_logits(model)
    effect = np.abs(expected - np.asarray(logits(plain))).max()
    assert effect > 0.02, "the adapter matters"
    np.testing.assert_allclose(logits(params), expected, atol=1e-5)

    scores = model(torch.tensor(TOKENS).long()).logits
    torch.nn.functional.cross_entropy(scores.reshape(-1, V), torch.tensor(TARGETS).long().reshape(-1)).backward()
    there = adapter(model, leaves, tune, of=lambda p: p.grad)
    here = jax.jit(jax.grad(lambda trained: cross_entropy(logits(made.join(trained, frozen)))))(trained)
    assert flat(here).keys() == flat(there).keys()
    assert tiny.worst(here, there) < 1e-5, "relative to the largest entry of a leaf"

    np.testing.assert_allclose(logits(whole(merged(params))), logits(params), atol=2e-6)
    counted = sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and "ranknum" not in name)
    assert counted == sum(leaf.size for leaf in flat(trained).values())


def test_a_soft_prompt():
    config = peft.PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    model, made = theirs(config), recipe(tiny.LLAMA, TuneConfig(method="prompt", prompt=5))
    learned = model.prompt_encoder["default"].embedding.weight
    trained = nest({"adapters/embed/table/prompt_PD": jnp.asarray(learned.detach().numpy())})
    params = made.join(trained, made.freeze(base()))
    tokens = np.concatenate([np.broadcast_to(V + np.arange(5, dtype=np.int32), (2, 5)), TOKENS], 1)
    expected = their_logits(model)
    np.testing.assert_allclose(logits(params, batch(tokens))[:, -12:], expected[:, -12:], atol=1e-5)
    assert np.abs(logits(params, batch(tokens))[:, -12:] - logits(base())).max() > 0.02

    scores = model(torch.tensor(TOKENS).long()).logits[:, -12:]
    torch.nn.functional.cross_entropy(scores.reshape(-1, V), torch.tensor(TARGETS).long().reshape(-1)).backward()

    def loss(trained):
        return cross_entropy(logits(made.join(trained, made.freeze(base())), batch(tokens))[:, -12:])

    assert tiny.worst(jax.grad(loss)(trained)["adapters"]["embed"]["table"]["prompt_PD"], learned.grad.numpy()) < 1e-5


def test_new_rows_of_a_tied_table():
    config = peft.LoraConfig(**LORA, target_modules=["q_proj"], trainable_token_indices=[3, 250])
    model, made = theirs(config), recipe(tiny.LLAMA, TuneConfig(method="lora", rank=8, targets="q", rows=(3, 250)))
    deltas = [p for name, p in model.named_parameters() if p.requires_grad and "tokens" in name]
    old = base()["embed"]["table"]
    with torch.no_grad():
        deltas[0] += 0.3 * torch.randn_like(deltas[0])
    rows = jnp.asarray(deltas[0].detach().numpy()) - old[jnp.array([3, 250])]
    trained = adapter(model, low_rank, TuneConfig(method="lora", rank=8, targets="q")) | {
        "rows": {"embed": {"table": rows}}
    }
    tokens = TOKENS.copy()
    tokens[:, ::3] = 3
    rows_in = batch(tokens)
    expected = np.asarray(model(torch.tensor(tokens).long()).logits.detach())
    params = made.join(trained, made.freeze(base()))
    np.testing.assert_allclose(logits(params, rows_in), expected, atol=1e-5)
    np.testing.assert_allclose(logits(merged(params), rows_in), expected, atol=1e-5)
