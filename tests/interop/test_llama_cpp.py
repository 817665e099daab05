"""llama.cpp itself: an exported file gives the logits and the ids of the run that it was made of."""

import numpy as np

from tests.data import jsons
from tests.data.test_tokenizer import NASTY
from tests.interop import folders, readers
from tests.interop.test_exported import exported
from tests.interop.test_imported import IDS_BL, each_kind, imported


@each_kind
def test_logits_and_ids(kind, tmp_path):
    told = folders.settings(kind, hidden_size=32, intermediate_size=64)
    weights = folders.tensors(told)
    loaded = imported(folders.write(tmp_path / "theirs", told, weights), tmp_path / "run")
    exported(tmp_path / "run", tmp_path / "m.gguf", format="gguf")
    model = readers.llama_cpp(tmp_path / "m.gguf", 64)
    expected = folders.logits(told, weights, IDS_BL)
    found = np.stack([readers.llama_cpp_logits(model, ids.tolist()) for ids in IDS_BL])
    close = 2e-3 if kind == "GemmaForCausalLM" else 3e-5  # its GELU on a CPU is a table in float16
    assert np.abs(found - expected).max() <= close * np.abs(expected).max()
    for text in [*NASTY, *jsons.TEXTS[:3]]:
        assert model.tokenize(text.encode(), add_bos=False, special=False) == loaded.tokenizer.encode(text)
