"""A run's tokenizer as the lists of a GGUF file: pieces with scores for llama.cpp's "llama", merges for its "gpt2"."""

import json
from pathlib import Path
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.data.marks import CONFIG, TEMPLATE
from chinchilla_jax.data.tokenizer_base import PROBE, BaseTokenizer
from chinchilla_jax.data.tokenizer_json import BYTE_PIECE, read, steps
from chinchilla_jax.data.tokenizers import is_json, open_tokenizer, tokenizer_file
from chinchilla_jax.disk import read_json
from chinchilla_jax.interop.gguf_tokenizer import WORDS, Words, from_merges
from chinchilla_jax.interop.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER,
    Lists,
    library_tokenizer,
    read_model,
)  # fmt: skip
from chinchilla_jax.interop.tokenizers import roles, token_ids

TEXT = (
    PROBE
    + "don't WE'LL I've 1234.5e-30x  if (a<b) {\n\n\treturn x[1:]; }\r\n  \u6d77\u98ce, \u043c\u0438\u0440\u3002 end"
)


def entries(run_dir: Path, rows: int) -> dict[str, Any]:
    """Key below `tokenizer.` -> value, for a table of `rows` rows; `UserError` for a tokenizer that llama.cpp lacks.

    A table longer than the tokenizer gets unused tokens, since llama.cpp counts them.
    """
    file, tokenizer = tokenizer_file(run_dir), open_tokenizer(run_dir)
    if not is_json(file):
        found = scored(read_model(file), file)
    else:
        facts, library, _ = read(file)
        byte_level = "ByteLevel" in steps(facts["decoder"])
        found = merged(facts, library, tokenizer, file) if byte_level else rescored(facts, library, tokenizer, file)
    for i in range(len(found["ggml.tokens"]), rows):
        found["ggml.tokens"].append(f"[PAD{i}]")
        found["ggml.token_type"].append(UNUSED)
        if "ggml.scores" in found:
            found["ggml.scores"].append(-1e4)
    template = run_dir / TEMPLATE
    ids = token_ids(tokenizer, roles(tokenizer, read_json(run_dir / CONFIG, missing={}), template.is_file()))
    ends = ids["eos_token_id"] if isinstance(ids["eos_token_id"], list) else [ids["eos_token_id"]]
    named = {"bos": ids.get("bos_token_id"), "eos": ends[0], "eot": dict(enumerate(ends)).get(1)}
    unknown = found["ggml.token_type"].index(UNKNOWN) if UNKNOWN in found["ggml.token_type"] else None
    named |= {"padding": ids.get("pad_token_id"), "unknown": unknown}
    return {
        **found,
        **{f"ggml.{name}_token_id": i for name, i in named.items() if i is not None},
        "ggml.add_bos_token": tokenizer.adds_bos,
        "ggml.add_eos_token": False,
        **({"chat_template": template.read_text(encoding="utf-8")} if template.is_file() else {}),
    }


def scored(lists: Lists, file: Path) -> dict[str, Any]:
    """SentencePiece's bpe."""
    require(
        not lists.unigram,
        f"{file} is a unigram tokenizer, which llama.cpp has no byte fallback for; use --format hf, or train with "
        "--data.tokenizer-kind bpe",
    )
    return {
        "ggml.model": "llama",
        "ggml.pre": "default",
        "ggml.tokens": list(lists.pieces),
        "ggml.scores": list(lists.scores),
        "ggml.token_type": list(lists.types),
        "ggml.add_space_prefix": lists.prefix,
    }


def rescored(facts: dict, library: Any, tokenizer: BaseTokenizer, file: Path) -> dict[str, Any]:
    """The same from a tokenizer.json: a piece's score is the place of the first merge that makes it."""
    require(
        "merges" in facts["model"],
        f"{file} is a unigram tokenizer, which llama.cpp has no byte fallback for; use --format hf",
    )
    pieces, types = typed(library, facts, tokenizer)
    made: dict[str, float] = {}
    for rank, (left, right) in enumerate(pairs(facts)):
        made.setdefault(left + right, -float(rank))
    scores = [made.get(piece, -float(len(made))) for piece in pieces]
    types = [BYTE if kind == NORMAL and BYTE_PIECE.fullmatch(piece) else kind for piece, kind in zip(pieces, types)]
    lists = Lists(False, pieces, scores, types, tokenizer.prefixes_space)
    same(library, library_tokenizer(lists), file)
    return scored(lists, file)


def merged(facts: dict, library: Any, tokenizer: BaseTokenizer, file: Path) -> dict[str, Any]:
    """Byte-level BPE, with the name that llama.cpp has for the way texts are cut into words."""
    pieces, types = typed(library, facts, tokenizer)
    lists = {
        "ggml.model": "gpt2",
        "ggml.pre": kind_of_words(facts, library, file),
        "ggml.tokens": pieces,
        "ggml.token_type": types,
        "ggml.merges": [" ".join(pair) for pair in pairs(facts)],
    }
    words = WORDS[lists["ggml.pre"]]
    same(library, from_merges(lambda key: lists[key.removeprefix("tokenizer.")], pieces, words), file)
    return lists


def kind_of_words(facts: dict, library: Any, file: Path) -> str:
    """The name of the first kind that cuts a text as this file does."""

    def fits(words: Words) -> bool:
        model, nfc = facts["model"], steps(facts.get("normalizer")) == ["NFC"]
        same_model = bool(model.get("ignore_merges")) == words.ignore_merges and nfc == words.nfc
        return same_model and words.cut().pre_tokenize_str(TEXT) == library.pre_tokenizer.pre_tokenize_str(TEXT)

    found = next((name for name, words in WORDS.items() if fits(words)), None)
    known = ", ".join(WORDS)
    require(found is not None, f"{file} cuts texts into words in a way that is none of GGUF's {known}; use --format hf")
    return found


def typed(library: Any, facts: dict, tokenizer: BaseTokenizer) -> tuple[list[str], list[int]]:
    """Pieces by id, and their types; an id without one is unused."""
    pieces = [f"[PAD{i}]" for i in range(tokenizer.size)]
    types = [UNUSED] * tokenizer.size
    added = {token["id"]: token["special"] for token in facts["added_tokens"]}
    unknown = library.token_to_id(facts["model"].get("unk_token") or "")
    for piece, i in library.get_vocab(with_added_tokens=True).items():
        pieces[i] = piece
        types[i] = NORMAL if i not in added else CONTROL if added[i] or i in tokenizer.controls.values() else USER
        if i == unknown and i not in tokenizer.controls.values():
            types[i] = UNKNOWN
    return pieces, types


def pairs(facts: dict) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json, in either of its spellings."""
    return [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in facts["model"]["merges"]]


def same(one: Any, other: Any, file: Path) -> None:
    """Refuse lists that do not give the ids of the file."""
    other.encode_special_tokens = True
    ids = [made.encode(TEXT, add_special_tokens=False).ids for made in (one, other)]
    normal = json.dumps(steps(read(file)[0].get("normalizer")))
    require(ids[0] == ids[1], f"{file} has steps that no GGUF tokenizer has (normaliser {normal}); use --format hf")
