"""The lists of a GGUF file as a tokenizer.json, and back.

`tokenizer.ggml.model` "llama" is SentencePiece's bpe with scores, "gpt2" byte-level BPE with merges; there
`tokenizer.ggml.pre` names the expression that cuts a text into words. Unigram ("t5") has no byte fallback in llama.cpp.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from chinchilla_jax.config import require
from chinchilla_jax.data.marks import CONFIG, GENERATION, TEMPLATE
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop.sentencepiece import CONTROL, UNKNOWN, UNUSED, USER, Lists, begin, library_tokenizer
from chinchilla_jax.interop.tokenizers import write as write_json

Told = Callable[..., Any]
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class Words(NamedTuple):
    """How a text is cut into words: an expression, or GPT-2's own where it is empty, after digits one by one."""

    expression: str = ""
    digits: bool = False
    nfc: bool = False
    ignore_merges: bool = False
    adds_bos: bool = False

    def cut(self) -> Any:
        """The pre-tokenizer."""
        from tokenizers import Regex, pre_tokenizers

        first = [pre_tokenizers.Digits(individual_digits=True)] if self.digits else []
        first += [pre_tokenizers.Split(Regex(self.expression), "isolated")] if self.expression else []
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not self.expression)
        return pre_tokenizers.Sequence([*first, last]) if first else last


GPT2, SINGLE_DIGITS = Words(), Words(digits=True)
LISTS = {"tokens": str, "token_type": int, "merges": str}
LLAMA3 = Words(ENDINGS + r"\p{N}{1,3}" + REST, ignore_merges=True, adds_bos=True)
SMAUG = LLAMA3._replace(ignore_merges=False, adds_bos=False)  # SmolLM3's
QWEN2 = Words(ENDINGS + r"\p{N}" + REST, nfc=True)
WORDS = {
    "gpt-2": GPT2,
    "phi-2": GPT2,
    "smollm": SINGLE_DIGITS,
    "starcoder": SINGLE_DIGITS,
    "refact": SINGLE_DIGITS,
    "codeshell": SINGLE_DIGITS,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "smaug-bpe": SMAUG,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
}


def check(path: Path, told: Told) -> None:
    """Refuse a tokenizer of another kind, or one whose lists do not fit together."""
    kind, pre = told("tokenizer.ggml.model"), told("tokenizer.ggml.pre", "none")
    require(kind in ("llama", "gpt2"), f"{path}: the tokenizer is of kind {kind!r}; llama and gpt2 are supported")
    known = ", ".join(WORDS)
    named = kind == "llama" or (isinstance(pre, str) and pre in WORDS)
    require(named, f"{path}: tokenizer.ggml.pre {str(pre)[:40]!r} is not supported; those that are: {known}")
    pieces = told("tokenizer.ggml.tokens")
    needed = ("token_type", "scores") if kind == "llama" else ("token_type",)
    for name in needed:
        size = len(told(f"tokenizer.ggml.{name}"))
        require(size == len(pieces), f"{path}: {size} entries in tokenizer.ggml.{name} of {len(pieces)} tokens")
    lists = {"tokens": str, "token_type": int, "scores": float} if kind == "llama" else LISTS
    for name, of in lists.items():
        found = told(f"tokenizer.ggml.{name}")
        ok = isinstance(found, list) and all(isinstance(x, of) for x in found)
        require(ok, f"{path}: tokenizer.ggml.{name} is no list of {of.__name__}; get the file again")
    types, scores = told("tokenizer.ggml.token_type"), told("tokenizer.ggml.scores", []) if kind == "llama" else []
    require({*types} <= {*range(7)}, f"{path}: tokenizer.ggml.token_type holds kinds beyond 6; get the file again")
    require(all(map(math.isfinite, scores)), f"{path}: tokenizer.ggml.scores are not finite; get the file again")
    adds = told("tokenizer.ggml.add_bos_token", False)
    require(type(adds) is bool, f"{path}: tokenizer.ggml.add_bos_token is {str(adds)[:40]!r}, neither true nor false")
    require(len({*pieces}) == len(pieces), f"{path}: a token is twice in tokenizer.ggml.tokens")
    template = told("tokenizer.chat_template", "")
    require(isinstance(template, str), f"{path}: tokenizer.chat_template is {str(template)[:40]}, no template")
    textless = {CONTROL, UNKNOWN, UNUSED}
    empty = textless.issuperset(told("tokenizer.ggml.token_type"))
    require(not empty, f"{path}: the vocabulary is empty, no token of tokenizer.ggml.tokens stands for text")
    size = len(used(told))
    for name in ("bos", "eos", "unknown", "padding", "eot"):
        i = told(f"tokenizer.ggml.{name}_token_id", -1)
        require(type(i) is int and -1 <= i < size, f"{path}: tokenizer.ggml.{name}_token_id {i} is no token")


def write(path: Path, told: Told, folder: Path) -> Path:
    """Write tokenizer.json, tokenizer_config.json, the chat template, and what ends a text where that is two tokens."""
    kind, pieces = told("tokenizer.ggml.model"), used(told)
    ids = {name: told(f"tokenizer.ggml.{name}_token_id", -1) for name in ("bos", "eos", "unknown", "padding", "eot")}
    words = WORDS.get(told("tokenizer.ggml.pre", "none"), GPT2)
    adds_bos = bool(told("tokenizer.ggml.add_bos_token", kind == "llama" or words.adds_bos)) and ids["bos"] >= 0
    try:
        made = from_scores(told, pieces) if kind == "llama" else from_merges(told, pieces, words)
        if adds_bos:
            made.post_processor = begin(pieces[ids["bos"]], ids["bos"])
        made.save(str(folder / "tokenizer.json"))
    except UserError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path}: the tokenizer's lists do not fit together ({error}); get the file again") from error
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    template = told("tokenizer.chat_template", "")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{ours}_token": pieces[ids[theirs]] for ours, theirs in roles.items() if ids[theirs] >= 0},
        "add_bos_token": adds_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        **({"chat_template": template} if template else {}),
    }
    write_json(folder / CONFIG, settings)
    ends = [i for i in dict.fromkeys([ids["eos"], ids["eot"]]) if i >= 0]
    if len(ends) > 1:
        write_json(folder / GENERATION, {"eos_token_id": ends})
    if template:
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
    return folder / "tokenizer.json"


def used(told: Told) -> list[str]:
    """The tokens but for unused ones at the end, which only make up the table's length."""
    pieces, types = told("tokenizer.ggml.tokens"), told("tokenizer.ggml.token_type")
    return pieces[: 1 + max((i for i, kind in enumerate(types) if kind != UNUSED), default=-1)]


def from_scores(told: Told, pieces: list[str]) -> Any:
    """SentencePiece's bpe."""
    prefix = bool(told("tokenizer.ggml.add_space_prefix", True))
    scores, types = (told(f"tokenizer.ggml.{name}")[: len(pieces)] for name in ("scores", "token_type"))
    return library_tokenizer(Lists(False, pieces, scores, types, prefix))


def from_merges(told: Told, pieces: list[str], words: Words) -> Any:
    """Byte-level BPE."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    merges = [tuple(merge.split(" ", 1)) for merge in told("tokenizer.ggml.merges")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocab, merges, fuse_unk=False, ignore_merges=words.ignore_merges))
    if words.nfc:
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer, made.decoder = words.cut(), decoders.ByteLevel()
    types = told("tokenizer.ggml.token_type")
    for kinds, special in (((CONTROL, UNKNOWN), True), ((USER,), False)):
        added = [AddedToken(piece, normalized=False) for piece, kind in zip(pieces, types) if kind in kinds]
        (made.add_special_tokens if special else made.add_tokens)(added)
    return made
