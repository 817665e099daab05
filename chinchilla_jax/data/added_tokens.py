"""Tokens that a Hugging Face folder adds to its SentencePiece model, as transformers' slow tokenizers read them.

`added_tokens_decoder` of tokenizer_config.json says them, with whether each is special; in older folders it is
added_tokens.json (token: id), where those are special that tokenizer_config.json or special_tokens_map.json give a part
to play. A special one becomes a control piece, which no text gives, another one a symbol that is found in any text.
A tokenizer.json has a list of its own.
"""

import tempfile
from pathlib import Path
from typing import Any

from chinchilla_jax.config import require
from chinchilla_jax.data.controls import appended
from chinchilla_jax.data.marks import ADDED, CONFIG, NAMES, content
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import copy_tokenizer, is_json, open_tokenizer, tokenizer_file
from chinchilla_jax.disk import is_remote, read_json
from chinchilla_jax.errors import UserError


def open_with_added(path: str | Path) -> BaseTokenizer:
    """The tokenizer in a file or folder, with the tokens that its folder adds. Raises what `open_tokenizer` does, and a
    `UserError` for tokens that cannot stand behind its pieces."""
    fresh = extended(path)
    if fresh is None:
        return open_tokenizer(path)  # a copy would be named by its content, and so would its faults
    with tempfile.TemporaryDirectory() as place:
        try:
            copied = copy_tokenizer(path, Path(place))
            copied.write_bytes(fresh)
            return open_tokenizer(copied)
        except UserError as error:
            theirs = path if is_remote(path) else tokenizer_file(path).parent
            raise UserError(str(error).replace(place, str(theirs))) from error


def copy_with_added(path: str | Path, place: Path) -> Path:
    """As `copy_tokenizer`, with the added tokens in the copy."""
    copied, fresh = copy_tokenizer(path, place), extended(path)
    if fresh is not None:
        copied.write_bytes(fresh)
    return copied


def extended(path: str | Path) -> bytes | None:
    """The SentencePiece model in a file or folder with its added tokens; None for one that is complete as it is, for
    another kind of tokenizer, and for what cannot be read."""
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

    file, model = tokenizer_file(path), sentencepiece_model_pb2.ModelProto()
    if is_json(file) or not file.is_file():
        return None
    raw = file.read_bytes()
    try:
        SentencePieceProcessor(model_proto=raw)
    except RuntimeError:
        return None  # said by whoever opens it
    model.ParseFromString(raw)
    pieces, new = [entry.piece for entry in model.pieces], {}
    for i, token, special in tokens(file.parent):
        if i < len(pieces) and pieces[i] == token:
            continue
        free = len(pieces) + len(new)
        require(
            i == free and token not in new and token not in pieces,
            f"{file}: the added token {token[:40]!r} has the id {i}, where the next free id of the model is {free}; "
            "save the folder again with a tokenizer.json, which transformers writes",
        )
        new[token] = special
    return appended(model, new) if new else None


def tokens(folder: Path) -> list[tuple[int, str, bool]]:
    """Id, token and whether it is special, by id."""
    told, where = read_json(folder / CONFIG, missing={}), folder / CONFIG
    found = told.get("added_tokens_decoder")
    if found is None:
        special, where = parts(told) | parts(read_json(folder / NAMES, missing={})), folder / ADDED
        listed = [(i, token, token in special) for token, i in read_json(where, missing={}).items()]
    else:
        held = isinstance(found, dict) and all(isinstance(token, dict) for token in found.values())
        require(held, f"{where}: added_tokens_decoder is no table of tokens; get it again")
        listed = [(i, content(token), bool(token.get("special"))) for i, token in found.items()]
    odd = [str(i)[:40] for i, token, _ in listed if isinstance(i, bool) or not str(i).isdecimal() or not token]
    require(not odd, f"{where}: {', '.join(odd[:1])} is no id of an added token; get it again")
    return sorted((int(i), token, special) for i, token, special in listed)


def parts(told: dict[str, Any]) -> set[str]:
    """The tokens to which a file gives a part to play."""
    more = told.get("additional_special_tokens") or []
    named = [value for key, value in told.items() if key.endswith("_token") and isinstance(value, str | dict)]
    return {content(token) for token in [*named, *(more if isinstance(more, list) else [])]}
