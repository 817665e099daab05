"""Ids and masks of dialogues against `apply_chat_template` of transformers, on the template that we write."""

from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.read import read
from chinchilla_jax.tasks.render import Renderer
from chinchilla_jax.tasks.template import CHATML, jinja
from tests.data import jsons

transformers = pytest.importorskip("transformers", reason="transformers is an extra: parity")
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"
MADE = [
    {
        "messages": [
            {"role": "user", "content": "a\n\nb  c"},
            {"role": "assistant", "content": "naïve 海风 \U0001f600\n"},
        ]
    },
    {"messages": [{"role": r, "content": f"{r} 12"} for r in ("system", "user", "assistant", "user", "assistant")]},
    {"messages": [{"role": r, "content": f"the {r}"} for r in ("assistant", "user")]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return jsons.write(
        tmp_path_factory.mktemp("json"), jsons.byte_level(), eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


def records(tmp_path):
    """Made-up dialogues and, where they are, 500 English and 500 Chinese ones."""
    import json

    (tmp_path / "made.jsonl").write_text("".join(json.dumps(record) + "\n" for record in MADE))
    real = [SHARED / f"dialogue/{name}/test.jsonl.gz" for name in ("sgd", "crosswoz")] if SHARED.is_dir() else []
    return read([tmp_path / "made.jsonl", *real]).records


def test_ids_and_masks_are_those_of_apply_chat_template(folder, tmp_path):
    ours = open_tokenizer(folder)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    theirs.chat_template = jinja(CHATML, bool(ours.start))
    renderer = Renderer(CHATML, ours)
    encoder = Encoder(Encoder.dialogue, renderer, TaskConfig(), 10**6)
    for record in records(tmp_path):
        messages = [{"role": turn.role, "content": turn.content} for turn in record.turns]
        told = theirs.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        [item] = encoder.items(record, 0)
        [part] = item.parts
        assert part.tokens.tolist() == told["input_ids"]
        np.testing.assert_array_equal(part.weights[:-1], told["assistant_masks"][1:])
        asked = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert renderer.prompt(record.turns) == asked
