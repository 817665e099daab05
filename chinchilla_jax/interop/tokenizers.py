"""The tokenizer of a run as Hugging Face folders hold it.

A run with a tokenizer.json gives it away unchanged, with the files that came with it. A SentencePiece model becomes a
tokenizer.json for the class PreTrainedTokenizerFast: the class LlamaTokenizer of transformers 5 would put a
pre-tokenizer of its own in. The model itself goes along for those who read it.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chinchilla_jax.data.marks import CONFIG, GENERATION, TEMPLATE, content
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import copy_tokenizer, is_json, open_tokenizer, tokenizer_file
from chinchilla_jax.disk import read_json
from chinchilla_jax.errors import UserError
from chinchilla_jax.interop.sentencepiece import begin, library_tokenizer, read_model

TURN_ENDS = ("<|im_end|>",)  # control pieces that end a turn, where a run has a chat template


@dataclass(frozen=True)
class Exported:
    """`ids` for config.json: bos_token_id, eos_token_id (a list where several end a text), pad_token_id; warnings."""

    ids: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def export_tokenizer(run_dir: Path, folder: Path, length: int) -> Exported:
    """Write tokenizer, tokenizer_config.json, generation_config.json and chat template of a run into `folder`.

    `length` is the longest text that the model is meant for.
    """
    file, tokenizer = tokenizer_file(run_dir), open_tokenizer(run_dir)
    copy_tokenizer(file, folder)
    template = run_dir / TEMPLATE
    if template.is_file() and not (folder / TEMPLATE).exists():
        shutil.copyfile(template, folder / TEMPLATE)
    notes, kind = [], "PreTrainedTokenizerFast"
    if not is_json(file):
        try:
            made = library_tokenizer(read_model(file))
            if tokenizer.adds_bos:
                made.post_processor = begin(made.id_to_token(tokenizer.start[0]), tokenizer.start[0])
            made.save(str(folder / "tokenizer.json"))
        except UserError as reason:
            notes, kind = [f"no tokenizer.json, tokenizer.model alone goes along: {reason}"], "LlamaTokenizer"
    names = roles(tokenizer, read_json(folder / CONFIG, missing={}), template.is_file())
    ids = token_ids(tokenizer, names)
    if not is_json(file) or not (folder / CONFIG).exists():  # theirs speaks of another class than is written here
        write(folder / CONFIG, settings(tokenizer, names, kind, length, template))
    kept = read_json(folder / GENERATION, missing={})
    if not kept:
        write(folder / GENERATION, ids)
    return Exported(ids | {name: kept[name] for name in ids if name in kept}, notes)


def roles(tokenizer: BaseTokenizer, told: dict, chat: bool) -> dict[str, str]:
    """The names of bos, eos, pad and unk: those that a file beside the tokenizer tells, else what the house uses."""
    pieces = {i: piece for piece, i in tokenizer.controls.items()}
    separator = pieces[tokenizer.separator]
    turn = next((piece for piece in TURN_ENDS if chat and piece in tokenizer.controls), None)
    own = {"bos": separator, "eos": turn or pieces[tokenizer.closing], "pad": "<pad>", "unk": "<unk>"}
    known = {*tokenizer.controls, *(["<unk>"] if len(tokenizer.special) > len(pieces) else [])}
    choices = {name: (content(told.get(f"{name}_token")), piece) for name, piece in own.items()}
    found = {name: next((piece for piece in pair if piece in known), "") for name, pair in choices.items()}
    return {name: piece for name, piece in found.items() if piece}


def token_ids(tokenizer: BaseTokenizer, names: dict[str, str]) -> dict[str, Any]:
    """The ids of bos, eos and pad; of eos all that end a text."""
    ids = {f"{name}_token_id": tokenizer.controls[names[name]] for name in ("bos", "eos", "pad") if name in names}
    ends = [ids["eos_token_id"], *sorted(tokenizer.stops - {ids["eos_token_id"], ids["bos_token_id"]})]
    if ids["eos_token_id"] != tokenizer.closing and tokenizer.closing not in ends:
        ends.append(tokenizer.closing)
    return ids | {"eos_token_id": ends if len(ends) > 1 else ends[0]}


def settings(tokenizer: BaseTokenizer, names: dict[str, str], kind: str, length: int, template: Path) -> dict[str, Any]:
    """tokenizer_config.json."""
    model_alone = {"legacy": False, "add_prefix_space": tokenizer.prefixes_space} if kind == "LlamaTokenizer" else {}
    return {
        "tokenizer_class": kind,
        **{f"{name}_token": piece for name, piece in names.items()},
        "add_bos_token": tokenizer.adds_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": length,
        **model_alone,
        **({"chat_template": template.read_text(encoding="utf-8")} if template.is_file() else {}),
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """A JSON file."""
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
