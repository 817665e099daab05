"""Which tokens begin and end a text, for tokenizers whose file does not say: it stands in files beside them.

A model that was trained with a bos token before every text (Llama, Mistral, Gemma) reads texts badly without it, so
bos is what begins a document of its token stream, and eos ends it: `bos text eos bos text eos ... bos`. A model without
one (GPT-2, Qwen, SmolLM) saw documents parted by their end token alone, which then begins every document, as the
separator of our own models does: `eos text eos text ... eos`. The eos of a chat model ends a turn, not a document,
where the vocabulary has a token for the end of a document: that one is taken. A prompt begins with bos where the model
has one, and with nothing else, as in transformers and llama.cpp. A text that is judged and an empty prompt begin with
the bos that a file names, whether or not the others do: models look at their first token from everywhere, and they
know that one there (SmolLM2's <|im_start|>; behind <|endoftext|> its label heads learn far later).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chinchilla_jax.disk import read_json
from chinchilla_jax.errors import UserError

CONFIG = "tokenizer_config.json"
GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"
NAMES = "special_tokens_map.json"
SIDECARS = (CONFIG, NAMES, GENERATION, TEMPLATE)
ADDED = "added_tokens.json"  # what it lists becomes part of a tokenizer.model that is copied
DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|end▁of▁sentence|>", "</s>", "<eos>")


@dataclass(frozen=True)
class Marks:
    """Ids as in `BaseTokenizer`, and all that stand for no text because a file gives them a part to play."""

    separator: int
    opening: int
    start: tuple[int, ...]
    end: tuple[int, ...]
    stops: frozenset[int]
    controls: frozenset[int]


def read_marks(
    folder: Path, vocabulary: Mapping[str, int], controls: Mapping[str, int], prefix: Sequence[int]
) -> Marks:
    """The marks of the tokenizer in `folder`; `prefix` is what its file puts in front of a text.

    Raises `UserError` where there is nothing to part documents with.
    """
    told, beside = read_json(folder / CONFIG, missing={}), read_json(folder / NAMES, missing={})
    keys = {name: f"{name}_token" for name in ("bos", "eos", "pad")}
    called = {name: content(told.get(key) or beside.get(key)) for name, key in keys.items()}
    named = {name: vocabulary.get(piece, -1) for name, piece in called.items()}
    adds = told.get("add_bos_token")
    if adds not in (None, True, False):
        raise UserError(f"{folder / CONFIG}: add_bos_token is {str(adds)[:40]!r}, neither true nor false")
    for name in ("bos", "eos"):
        if called[name] and named[name] < 0:
            where = folder / (CONFIG if told.get(keys[name]) else NAMES)
            raise UserError(f"{where}: {name}_token {called[name][:40]!r} is no token of the tokenizer")
    uses_bos = bool(prefix) if adds is None else bool(adds)
    bos = named["bos"] if named["bos"] >= 0 else next(iter(prefix), -1)
    uses_bos = uses_bos and bos >= 0
    ends = [controls[name] for name in DOCUMENT_ENDS if name in controls]
    ends += [i for i in (named["eos"], bos) if i >= 0]
    if not ends:
        raise UserError(
            f"{folder}: nothing says which token ends a document; put the tokenizer_config.json of the tokenizer "
            "beside it, with its eos_token"
        )
    separator, end = (bos, tuple(i for i in ends[:1] if i != bos)) if uses_bos else (ends[0], ())
    stops = {separator, *end, named["eos"], *generation_ends(folder, 1 + max(vocabulary.values()))} - {-1}
    held = frozenset(i for i in {*named.values(), separator, *end} if i >= 0)
    return Marks(separator, bos if bos >= 0 else separator, (bos,) if uses_bos else (), end, frozenset(stops), held)


def generation_ends(folder: Path, size: int) -> list[int]:
    """The ids that end a text by generation_config.json, if there is one; `UserError` for one outside [0, size)."""
    return ends_of(folder / GENERATION, read_json(folder / GENERATION, missing={}), size)


def ends_of(path: Path, settings: Mapping[str, Any], size: int) -> list[int]:
    """The ids that end a text by the `settings` of the file at `path`; `UserError` for one outside [0, size)."""
    told = settings.get("eos_token_id")
    ids = told if isinstance(told, list) else [] if told is None else [told]
    for i in ids:
        if type(i) is not int or not 0 <= i < size:
            raise UserError(
                f"{path}: eos_token_id {str(i)[:40]!r} is no id of a token (0 to {size - 1}); "
                "correct it, or take it out"
            )
    return ids


def content(token: Any) -> str:
    """The text of a token, which is written as a string or as an object."""
    text = (token.get("content") if isinstance(token, dict) else token) or ""
    if not isinstance(text, str):
        raise UserError(f"{CONFIG}: {str(token)[:40]} is no name of a token; copy the file again")
    return text
