"""A Hugging Face folder as a `Source`: config.json, safetensors, tokenizer."""

import re
from pathlib import Path

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.data.added_tokens import copy_with_added, open_with_added
from chinchilla_jax.data.marks import ADDED, GENERATION, NAMES, TEMPLATE, ends_of
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import is_json, tokenizer_file
from chinchilla_jax.disk import plain, read_json, write_json
from chinchilla_jax.errors import UserError, one_line
from chinchilla_jax.interop import architectures, heads
from chinchilla_jax.interop.names import LAYER, their_shapes
from chinchilla_jax.interop.source import check_tensors, heads_of
from chinchilla_jax.interop.tensors import FLOATS, Tensors, locate
from chinchilla_jax.tasks.kept import read_task

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Vectors that an architecture has where a bias is on and that we lack.
ZEROS = {"attention_bias": LAYER + "self_attn.o_proj.bias", "mlp_bias": LAYER + "mlp.down_proj.bias"}
# Tables that old files hold and that follow from the settings.
DERIVED = re.compile(r"\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$")


CARD = 1 << 16  # characters of a model card in which its header must end


class Folder:
    """A `Source` over a folder. Whatever is not understood is a `UserError` here, before anything is written."""

    def __init__(self, folder: Path, ignored: tuple[str, ...] = ()):
        cached = (
            " (of Hugging Face's cache, one of the folders in snapshots)" if (folder / "snapshots").is_dir() else ""
        )
        require(
            (folder / CONFIG).exists(),
            f"{folder} has no {CONFIG}; name a Hugging Face model folder{cached} or a .gguf file",
        )
        told = read_json(folder / CONFIG)
        architecture, self.model, self.task, trunk, biases, said = architectures.to_settings(told, ignored)
        if self.task.kind != "auto":
            self.task = heads.read_as(self.task, read_task(folder))
        self._folder = folder
        where, files = locate(folder)
        layers = self.model.layers
        require(layers <= len(where), f"{folder}: num_hidden_layers is {layers}, and there are {len(where)} tensors")
        self._tensors = Tensors(where)
        where = {name: path for name, path in where.items() if not DERIVED.search(name)}
        self.files = [plain(path) for path in (folder / CONFIG, *files, *self._tokenizer_files())]
        self.facts = {"format": "hf", "architecture": architecture, **said}
        tokenizer = open_with_added(folder)  # refused here, under the names that a person knows
        chat_template(folder)
        self._ends = further_ends(folder, told, tokenizer)
        self.facts |= {"license": name} if (name := license_name(folder, told)) else {}
        self._stored = {re.sub(f"^{trunk}\\.", "model.", name): name for name in where}
        require(len(self._stored) == len(where), f"{folder} has tensors below {trunk} and below model; get it again")
        self.shapes = {name: self._tensors.shapes[stored] for name, stored in self._stored.items()}
        self._take_out_zeros(biases)
        self._take_out_tied()
        check_tensors(str(folder), self.shapes, their_shapes(self.model, heads_of(self)))
        for name in self.shapes:
            kind = self._tensors.dtypes[self._stored[name]]
            require(kind in FLOATS, f"{folder}: {name} is {kind}; those that are read: {', '.join(FLOATS)}")

    def _tokenizer_files(self) -> list[Path]:
        file = tokenizer_file(self._folder)
        beside = (TOKENIZER_CONFIG, NAMES, *(() if is_json(file) else (ADDED,)))
        return [path for path in (file, *(self._folder / name for name in beside)) if path.exists()]

    def _take_out_zeros(self, biases: set[str]) -> None:
        """Check that the biases that we lack are 0, and forget them."""
        for key in sorted(biases):
            for n in range(self.model.layers):
                name = ZEROS[key].format(n=n)
                require(self.shapes.pop(name, None) == (self.model.d_model,), f"{self._folder}: {name} is missing")
                zero = not np.any(self.read(name, ()))
                require(zero, f"{self._folder}: {name} is not 0, and a bias there is not supported")

    def _take_out_tied(self) -> None:
        """An output table that is there although it is tied must be the embedding table."""
        inner, outer = "model.embed_tokens.weight", "lm_head.weight"
        if not self.model.tied or outer not in self.shapes:
            return
        same = self.shapes[inner] == self.shapes.pop(outer) and all(
            np.array_equal(a, b) for a, b in zip(self._tensors.rows(inner), self._tensors.rows(outer))
        )
        require(same, f"{self._folder}: {outer} differs from {inner} although {CONFIG} has tie_word_embeddings true")

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor in the type it is stored in."""
        return self._tensors.read(self._stored[name], index)

    def write_tokenizer(self, folder: Path) -> Path:
        """Copy the tokenizer and what speaks of it; the chat template becomes a file of its own."""
        copied = copy_with_added(self._folder, folder)
        if self._ends:
            told = read_json(folder / GENERATION, missing={})
            write_json(folder / GENERATION, told | {"eos_token_id": self._ends})
        template = chat_template(self._folder)
        if template:
            (folder / TEMPLATE).write_text(template, encoding="utf-8")
        return copied


def chat_template(folder: Path) -> str:
    """The chat template of a model folder, whichever of its files holds it; empty where there is none."""
    if (folder / TEMPLATE).is_file():
        try:
            return (folder / TEMPLATE).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{folder / TEMPLATE} is no text; get it again, or delete it") from error
    told = read_json(folder / TOKENIZER_CONFIG, missing={}).get("chat_template")
    if isinstance(told, list) and all(isinstance(entry, dict) for entry in told):
        told = next((entry.get("template") for entry in told if entry.get("name") == "default"), None)
    require(
        told is None or isinstance(told, str),
        f"{folder / TOKENIZER_CONFIG}: chat_template is {str(told)[:40]}, no template; get it again",
    )
    return told or ""


def further_ends(folder: Path, told: dict, tokenizer: BaseTokenizer) -> list[int]:
    """What ends a text by config.json, if the tokenizer does not stop there; none where generation_config.json says."""
    if read_json(folder / GENERATION, missing={}).get("eos_token_id") is not None:
        return []
    found = ends_of(folder / CONFIG, told, tokenizer.size)
    return [] if tokenizer.stops.issuperset(found) else found


def license_name(folder: Path, settings: dict) -> str:
    """The licence that config.json or the header of the model card names; empty where neither does."""
    if isinstance(settings.get("license"), str):
        return one_line(settings["license"], 200)
    card = folder / "README.md"
    if not card.is_file():
        return ""
    with open(card, encoding="utf-8", errors="replace") as file:
        header = re.match(r"---\s*\n(.*?)\n---", file.read(CARD), re.DOTALL)
    told = re.sub(r"[ \t]#.*", "", header.group(1)) if header else ""
    found = re.search(r"^license:[ \t]*(.*(?:\n[ \t]*-.*)*)", told, re.MULTILINE)  # a name, or a list in either form
    return ", ".join(re.findall(r"\w[\w.+-]*", found.group(1))) if found else ""
