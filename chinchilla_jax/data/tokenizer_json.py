"""A `tokenizer.json` (the `tokenizers` library) behind the same calls as a SentencePiece model.

Three kinds are understood: byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM), BPE with byte fallback (Llama 2, Mistral,
Gemma) and unigram. Ids are those of the library, with two differences that keep texts whole: control tokens are never
read out of a text, so nobody can type one (a unigram model would find them and byte pieces in a text that spells them:
such a spelling is cut in two); and where the file has byte pieces, U+2581, which the library turns into a space, is
spelled as its three bytes, as in `tokenizer.py`.
"""

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.data.marks import read_marks
from chinchilla_jax.data.tokenizer_base import SPACE, BaseTokenizer, check_utf8
from chinchilla_jax.errors import UserError

BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
UTF8_BYTES = [*range(0x80), *range(0x80, 0xC0), *range(0xC2, 0xF5)]  # all that UTF-8 ever has
SEQUENCES = ("decoders", "pretokenizers", "normalizers", "processors")
LONG = 4096  # characters, above which a text is encoded with the interpreter's lock released
KINDS = "byte-level BPE, BPE with byte fallback and unigram are understood"


class JsonTokenizer(BaseTokenizer):
    """A tokenizer.json, with what tokenizer_config.json beside it says of bos and eos.

    Raises `UserError` for a file that is missing, damaged or of another kind, or names no token that ends a document.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        self._facts, self._model, self.sha256 = read(Path(path))
        vocabulary = self._model.get_vocab(with_added_tokens=True)
        self.size = 1 + max(vocabulary.values(), default=-1)
        self._vocabulary = vocabulary
        plain, whole = (self._model.encode("a", add_special_tokens=special).ids for special in (False, True))
        prefix = next(whole[:n] for n in range(len(whole) + 1) if whole[n : n + len(plain)] == plain)
        self._controls = {token["content"]: token["id"] for token in self._facts["added_tokens"] if token["special"]}
        self._marks = marks = read_marks(Path(path).parent, vocabulary, self._controls, prefix)
        self.separator, self.start, self.end, self.stops = marks.separator, marks.start, marks.end, marks.stops
        self.adds_bos = bool(marks.start)
        self.check_text(self._model.get_vocab(with_added_tokens=False).values())
        # bos, eos and pad are control tokens also where the file takes them out of a text.
        self._model.add_special_tokens([name for name in self.controls if name not in self._controls])
        self._literals = self._taken_for_others()
        split_literals(self._model, self._literals)
        self.prefixes_space = bool(plain) and self.pieces[plain[0]].startswith(b" ")
        spelling = [self._vocabulary.get(f"<0x{byte:02X}>", -1) for byte in SPACE.encode()]
        spelled = self._byte_pieces and min(spelling) >= 0
        self._space_ids = np.array(spelling, np.int32) if spelled else None

    def _taken_for_others(self) -> list[str]:
        """Spellings of control tokens and byte pieces in which a model, such as a unigram one, finds the token."""
        ids = {i: piece for piece, i in self._vocabulary.items()}
        kept = {*self.controls.values(), *({self._unknown} & {*ids})}
        if self._byte_pieces:
            kept |= {i for piece, i in self._vocabulary.items() if BYTE_PIECE.fullmatch(piece)}
        return [ids[i] for i in sorted(kept) if i in self._model.encode(ids[i], add_special_tokens=False).ids]

    @property
    def opening(self) -> int:
        """The bos that tokenizer_config.json names, also where no prompt begins with it; else `separator`."""
        return self._marks.opening

    @property
    def _byte_level(self) -> bool:
        return "ByteLevel" in steps(self._facts["decoder"])

    @property
    def _byte_pieces(self) -> bool:
        return bool(self._facts["model"].get("byte_fallback")) and not self._byte_level

    @functools.cached_property
    def controls(self) -> dict[str, int]:
        """Name -> id of the control tokens, which no text gives: special ones, bos, eos and pad."""
        names = {i: piece for piece, i in self._vocabulary.items()}
        called = {piece: i for piece, i in self._controls.items() if i != self._unknown}
        return called | {names[i]: i for i in sorted(self._marks.controls)}

    @property
    def _unknown(self) -> int:
        model = self._facts["model"]
        named = self._vocabulary.get(model.get("unk_token") or "", -1)
        return model["unk_id"] if isinstance(model.get("unk_id"), int) else named

    @functools.cached_property
    def special(self) -> tuple[int, ...]:
        """Control tokens, the unknown one, and ids that stand for nothing."""
        held = set(self._vocabulary.values())
        gone = {i for i in range(self.size) if i not in held}
        return tuple(sorted({*self.controls.values(), self._unknown, *gone} - {-1}))

    @property
    def lossless(self) -> bool:
        """Whether every text comes back unchanged: some vocabularies lack the bytes of rare characters."""
        spelled = byte_table() if self._byte_level else [f"<0x{byte:02X}>" for byte in range(256)]
        held = {self._piece_bytes(piece) for piece in spelled if piece in self._vocabulary}
        steps_before = [*parts(self._facts.get("normalizer")), *parts(self._facts.get("pre_tokenizer"))]
        replaced = [step["pattern"]["String"] for step in steps_before if "String" in step.get("pattern", {})]
        return {bytes([byte]) for byte in UTF8_BYTES} <= held and self.keeps(replaced)

    @functools.cached_property
    def pieces(self) -> list[bytes]:
        """The bytes that each id stands for; none for control tokens."""
        found, special = [b""] * self.size, set(self.special)
        added = {token["id"] for token in self._facts["added_tokens"]}
        for piece, i in self._vocabulary.items():
            if i not in special:
                found[i] = piece.encode() if i in added else self._piece_bytes(piece)
        if self._unknown >= 0 and self._unknown not in self._marks.controls:
            found[self._unknown] = "\ufffd".encode()
        return found

    def _piece_bytes(self, piece: str) -> bytes:
        if self._byte_level:
            table = byte_table()
            known = all(character in table for character in piece)
            return bytes(table[character] for character in piece) if known else piece.encode()
        if self._byte_pieces and BYTE_PIECE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(SPACE, " ").encode()

    @functools.cached_property
    def _later(self) -> Any:
        """The library's object for what follows U+2581 in a text: it puts no space in front."""
        return without_prefix(self._model) if self.prefixes_space else self._model

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of `text` as int32, (n,)."""
        return self._sections(text, ids_of)

    def sample_array(self, text: str, seed: int, alpha: float = 0.1) -> np.ndarray:
        """See `BaseTokenizer`; the library draws from no seed, so the draw is our own, without added tokens."""
        from chinchilla_jax.data.resegment import Resegmenter

        @functools.cache
        def draw(library: Any) -> Resegmenter:
            return Resegmenter(library, self._facts["model"], self._vocabulary, self._literals, seed, alpha)

        return self._sections(text, lambda library, section: draw(library)(section))

    def _sections(self, text: str, encode) -> np.ndarray:
        check_utf8(text)
        if self._space_ids is None or SPACE not in text:
            return np.array(encode(self._model, text), np.int32)
        first, *others = text.split(SPACE)
        arrays: list[Any] = [encode(self._model, first) if first else []]
        for section in others:
            arrays += [self._space_ids, encode(self._later, section) if section else []]
        return np.concatenate(arrays).astype(np.int32)


def ids_of(library: Any, section: str) -> list[int]:
    """The ids of a text or a part of one, without what begins and ends it."""
    if len(section) < LONG:
        return library.encode(section, add_special_tokens=False).ids
    # Without offsets, a quarter of the time; and unlike `encode` it lets other threads of Python run meanwhile.
    return library.encode_batch_fast([section], add_special_tokens=False)[0].ids


def without_prefix(model: Any) -> Any:
    """A copy that puts no space in front of a text."""
    import tokenizers

    facts = json.loads(model.to_str())
    for one in [*parts(facts["normalizer"]), *parts(facts["pre_tokenizer"])]:
        one |= {"Prepend": {"prepend": ""}, "Metaspace": {"prepend_scheme": "never"}}.get(one["type"], {})
    made = tokenizers.Tokenizer.from_str(json.dumps(facts))
    made.encode_special_tokens = True
    return made


def read(path: Path) -> tuple[dict, Any, str]:
    """The contents of a tokenizer.json, the library's object and the file's sha256."""
    import tokenizers

    try:
        text = path.read_bytes()
        facts = json.loads(text)
    except OSError as error:
        raise UserError(f"{path}: cannot read the tokenizer ({error.strerror}); see --data.tokenizer") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a tokenizer.json ({error}); copy the file again") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("model"), dict):
        raise UserError(f"{path}: not a tokenizer.json, it has no model; pass the file of the tokenizers library")
    try:
        model = tokenizers.Tokenizer.from_str(text.decode())
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path}: the tokenizers library cannot read it ({error}); copy the file again") from error
    facts = {"added_tokens": [], "decoder": None, "post_processor": None} | facts
    check_kind(path, facts)
    check_ids(path, facts, model.get_vocab(with_added_tokens=True))
    moved = [t["content"] for t in facts["added_tokens"] if model.token_to_id(t["content"]) != t["id"]]
    if moved:
        raise UserError(f"{path}: {moved[0]} does not follow the tokens before it; copy the file again")
    model.no_truncation()
    model.no_padding()
    if facts["model"].get("dropout"):
        model.model.dropout = None  # a text has the same ids every time
    model.encode_special_tokens = True  # a text that spells a control token gets ordinary pieces
    return facts, model, hashlib.sha256(text).hexdigest()


def split_literals(model: Any, literals: list[str]) -> None:
    """Have `model` cut a text behind the first character of every literal, so that none is found whole."""
    from tokenizers import Regex, pre_tokenizers

    if literals:
        heads = "|".join(f"{re.escape(piece[0])}(?={re.escape(piece[1:])})" for piece in literals)
        cut = pre_tokenizers.Split(Regex(heads), "merged_with_previous")
        first = [model.pre_tokenizer] if model.pre_tokenizer else []
        model.pre_tokenizer = pre_tokenizers.Sequence([*first, cut])


def check_kind(path: Path, facts: dict) -> None:
    """Refuse what is no kind of tokenizer that gives texts back."""
    model, decoders = facts["model"], steps(facts["decoder"])
    kind = model.get("type") or ("BPE" if "merges" in model else "unknown")
    if kind not in ("BPE", "Unigram"):
        raise UserError(f"{path}: a tokenizer of the {kind} kind loses spaces and unknown words of a text; {KINDS}")
    if not {"ByteLevel", "ByteFallback", "Metaspace"} & set(decoders):
        raise UserError(f"{path}: a tokenizer with the decoder {'+'.join(decoders) or 'none'}; {KINDS}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UserError(f"{path}: pieces with {name} {model[name]!r}; {KINDS}")


def check_ids(path: Path, facts: dict, vocabulary: dict[str, int]) -> None:
    """Refuse what the library takes and fails on at some text, and ids that stand for two tokens or lie far apart."""
    ids, model = {*vocabulary.values()}, facts["model"]
    unknown = model.get("unk_token") if "merges" in model else model.get("unk_id")
    around = [token for one in parts(facts["post_processor"]) for token in one.get("special_tokens", {}).values()]
    asked = {piece["SpecialToken"]["id"] for one in parts(facts["post_processor"])
             for name in ("single", "pair") for piece in one.get(name, ()) if "SpecialToken" in piece}  # fmt: skip
    faults = {
        "two tokens have the same id": len(ids) < len(vocabulary),
        f"ids go up to {max(ids, default=0)} for {len(ids)} tokens": max(ids, default=0) > 2 * len(ids) + 65536,
        f"its unk_token {unknown!r} is no token": isinstance(unknown, str) and unknown not in vocabulary,
        "a unigram model without an unk_id": unknown is None and "merges" not in model,
        "its post_processor puts in tokens that are none": bool(asked - {token["id"] for token in around})
        or not ids.issuperset(i for token in around for i in token["ids"]),
    }
    for fault, found in faults.items():
        if found:
            raise UserError(f"{path}: {fault}; copy the file again")


def steps(part: dict | None) -> list[str]:
    """The names of the steps of a decoder, normaliser or pre-tokeniser."""
    return [one["type"] for one in parts(part)]


def parts(part: dict | None) -> list[dict]:
    """The steps themselves, those of sequences in sequences too."""
    if not part:
        return []
    inner = next((part[name] for name in SEQUENCES if name in part), None)
    return [part] if inner is None else [one for step in inner for one in parts(step)]


@functools.cache
def byte_table() -> dict[str, int]:
    """Character -> byte of GPT-2's alphabet: printable bytes stand for themselves, the rest from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + number): byte for number, byte in enumerate(others)}
