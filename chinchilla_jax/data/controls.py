"""Control pieces that a tokenizer gets after the fact, for the turns of a chat: no other id moves, nobody can type one.

As user-defined symbols they would be found in any text that spells them, which lets a user speak as the assistant. As
control pieces they are reached by id alone, their spelling in a text is ordinary pieces, and decoding prints nothing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizer_json import read
from chinchilla_jax.data.tokenizers import copy_tokenizer, is_json, open_tokenizer, tokenizer_file
from chinchilla_jax.errors import UserError


def add_controls(path: str | Path, pieces: Sequence[str], folder: Path) -> BaseTokenizer:
    """Write the tokenizer at `path` into `folder` with `pieces` as control pieces behind its own, and open it.

    Those that it has as control pieces already keep their ids; `controls` of the result says all ids. Raises
    `UserError` for a piece that is ordinary text to the tokenizer.
    """
    if bad := [piece for piece in pieces if not piece.strip() or pieces.count(piece) > 1]:
        raise UserError(f"control pieces must be different and not empty, not {bad[0]!r}")
    file = tokenizer_file(path)
    fresh = extended_json(file, pieces) if is_json(file) else extended_model(file, pieces)
    copy_tokenizer(file, folder)
    (folder / file.name).write_bytes(fresh)
    made, old = open_tokenizer(folder / file.name), open_tokenizer(file)
    given = set(made.controls.values())
    moved = [i for i, piece in enumerate(old.pieces) if made.pieces[i] != piece and i not in given]
    if moved or not set(pieces) <= set(made.controls):
        raise UserError(f"{file}: {', '.join(pieces)} cannot be added without moving other ids; choose other names")
    return made


def extended_model(file: Path, pieces: Sequence[str]) -> bytes:
    """A SentencePiece model with control pieces at its end."""
    from sentencepiece import sentencepiece_model_pb2

    known = open_tokenizer(file)  # and refused where it is no model
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(file.read_bytes())
    held, fresh = {entry.piece for entry in model.pieces}, [piece for piece in pieces if piece not in known.controls]
    for piece in fresh:
        if piece in held:
            raise UserError(f"{file}: {piece!r} is a piece of text there, not a control piece; choose another name")
    return appended(model, dict.fromkeys(fresh, True))


def appended(model: Any, pieces: Mapping[str, bool]) -> bytes:
    """A SentencePiece model with further pieces: control pieces where that is true, else symbols found in any text."""
    kinds = type(model).SentencePiece
    for piece, control in pieces.items():
        model.pieces.add(piece=piece, score=0.0, type=kinds.CONTROL if control else kinds.USER_DEFINED)
    return model.SerializeToString()


def extended_json(file: Path, pieces: Sequence[str]) -> bytes:
    """A tokenizer.json with special added tokens at its end."""
    facts, library, _ = read(file)
    vocabulary = library.get_vocab(with_added_tokens=True)
    added, size = {token["content"]: token for token in facts["added_tokens"]}, 1 + max(vocabulary.values(), default=-1)
    for piece in pieces:
        if piece in added:
            added[piece]["special"] = True
            continue
        if piece not in vocabulary:
            number, size = size, size + 1
        else:
            number = vocabulary[piece]
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added[piece] = {"id": number, "content": piece, **plain, "special": True}
    facts["added_tokens"] = sorted(added.values(), key=lambda token: token["id"])
    return json.dumps(facts, ensure_ascii=False, indent=2).encode()
