"""A GGUF file as a `Source`: its keys as settings, its tensors under Hugging Face's names, its tokenizer's lists."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.config import ModelConfig, TaskConfig, require
from chinchilla_jax.errors import UserError, one_line
from chinchilla_jax.interop import gguf_names as names
from chinchilla_jax.interop import gguf_tokenizer
from chinchilla_jax.interop.architectures import narrowed, within
from chinchilla_jax.interop.names import their_shapes
from chinchilla_jax.interop.source import check_tensors

FLOATS = ("F32", "F16", "BF16")
PACKED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
FAULTS = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)
# Keys below the architecture that change nothing, or nothing where they are 0.
NEUTRAL = {"vocab_size", "rope.scaling.finetuned", "rope.scaling.original_context_length", "tensor_data_layout"}
LOOKED_AT = {"attention.value_length", "attention.sliding_window", "attention.causal"}
LOOKED_AT |= {"rope.dimension_count", "rope.scaling.type", "rope.scaling.factor"}
MUST_BE_ZERO = {"expert_count", "expert_used_count", "attention.clamp_kqv", "attention.max_alibi_bias"}


class File:
    """A `Source` over a GGUF file. Whatever is not understood is a `UserError` here, before anything is written."""

    def __init__(self, path: Path, ignored: tuple[str, ...] = ()):
        self._path, self.files = path, [path]
        self._reader = opened(path)
        self._keys = dict(self._reader.fields)
        name = self._told("general.architecture")
        known = ", ".join(names.ARCHITECTURES)
        require(name in names.ARCHITECTURES, f"{path}: architecture {name!r} is not supported; those that are: {known}")
        require(
            self._told("split.count", 1) in (0, 1), f"{path} is one part of a model in many files; merge them first"
        )
        self._row = names.ARCHITECTURES[name]
        self._tensors = self._named()
        self.task = TaskConfig()
        self.facts = {"format": "gguf", "architecture": self._row.hf}
        self.model = self._settings(name, ignored)
        if license := self._told("general.license", ""):
            self.facts["license"] = one_line(str(license), 200)
        self.shapes = {name: tuple(map(int, reversed(t.shape))) for name, t in self._tensors.items()}
        check_tensors(str(path), self.shapes, their_shapes(self.model))
        gguf_tokenizer.check(path, self._told)

    def _told(self, key: str, default: Any = None) -> Any:
        """The value of a key; without a default a missing one is a `UserError`."""
        if key in self._keys:
            return contents(self._path, self._keys[key])
        require(
            default is not None, f"{self._path} has no key {key}; get the file again, from another source if need be"
        )
        return default

    def _named(self) -> dict[str, Any]:
        found = {}
        for tensor in self._reader.tensors:
            kind = tensor.tensor_type.name
            if tensor.name == names.FREQUENCIES:
                continue
            name = names.to_hf(tensor.name)
            require(name is not None, f"{self._path}: the tensor {tensor.name} is not understood")
            known = ", ".join((*FLOATS, *PACKED))
            require(kind in FLOATS + PACKED, f"{self._path}: {tensor.name} is {kind}; those that are read: {known}")
            found[name] = tensor
        require(bool(found), f"{self._path} holds no tensors")
        return found

    def _settings(self, name: str, ignored: tuple[str, ...]) -> ModelConfig:
        rest = {key.removeprefix(name + "."): key for key in self._keys if key.startswith(name + ".")}
        sizes = {ours: whole(rest[key], self._told(rest[key])) for key, ours in names.SIZES.items() if key in rest}
        for key in ("block_count", "embedding_length", "feed_forward_length", "attention.head_count"):
            require(key in rest, f"{self._path} has no key {name}.{key}; get the file again")
        sizes.setdefault("kv_heads", sizes["heads"])
        sizes.setdefault("head_dim", sizes["d_model"] // sizes["heads"])
        if width := self._told(rest["attention.sliding_window"]) if "attention.sliding_window" in rest else 0:
            context, width = sizes.get("context", 0), whole(rest["attention.sliding_window"], width)
            self.facts |= narrowed(context, width)
            sizes["context"] = within(context, width)
        numbers = {ours: number(rest[key], self._told(rest[key])) for key, ours in names.NUMBERS.items() if key in rest}
        require("norm_eps" in numbers, f"{self._path} has no key {name}.attention.layer_norm_rms_epsilon")
        table = self._tensors.get("model.embed_tokens.weight")
        require(table is not None, f"{self._path} has no tensor token_embd.weight")
        biased = any(tensor.endswith("q_proj.bias") for tensor in self._tensors)
        settings = {"attention_biases": biased} | names.DEFAULTS | self._row.settings | sizes | numbers
        if biased:
            settings["attention_biases"] = True
        settings |= self._stretch(name, rest, sizes, numbers)
        self._refuse(name, rest, sizes, ignored)
        return ModelConfig(
            positions="rope",
            vocab_size=int(table.shape[1]),
            tied="lm_head.weight" not in self._tensors,
            embed_scale=math.sqrt(sizes["d_model"]) if self._row.scaled else 1.0,
            **settings,
        )

    def _refuse(self, name: str, rest: dict[str, str], sizes: dict[str, int], ignored: tuple[str, ...]) -> None:
        """Raise a `UserError` for keys that ours has no counterpart for."""
        for key in ("attention.value_length", "rope.dimension_count"):
            told = self._told(rest[key]) if key in rest else sizes["head_dim"]
            require(told == sizes["head_dim"], f"{self._path}: {name}.{key} {told} of heads {sizes['head_dim']} wide")
        looked_at = {*names.SIZES, *names.NUMBERS, *NEUTRAL, *LOOKED_AT}
        causal = self._told(rest["attention.causal"]) if "attention.causal" in rest else True
        require(causal is True, f"{self._path}: {name}.attention.causal is {str(causal)[:40]}, which is not supported")
        unknown = [
            key
            for short, key in rest.items()
            if short not in looked_at and key not in ignored and not (short in MUST_BE_ZERO and not self._told(key))
        ]
        require(not unknown, f"{self._path} has keys that are not supported: {', '.join(unknown[:5])}")

    def _stretch(self, name: str, rest: dict[str, str], sizes: dict, numbers: dict) -> dict[str, Any]:
        """Settings of stretched rotary waves, from keys or from the factors that Llama 3's files hold."""
        kind = self._told(rest["rope.scaling.type"]) if "rope.scaling.type" in rest else "none"
        require(kind in ("none", "linear"), f"{self._path}: {name}.rope.scaling.type {kind!r} is not supported")
        factors = next((t for t in self._reader.tensors if t.name == names.FREQUENCIES), None)
        if kind == "linear":
            require("rope.scaling.factor" in rest, f"{self._path} has no key {name}.rope.scaling.factor")
            return {"rope_scaling": "linear", "rope_factor": number("factor", self._told(rest["rope.scaling.factor"]))}
        if factors is None:
            return {}
        held, theta = dequantised(factors, slice(None)).reshape(-1), numbers.get("rope_theta", 10000.0)
        told = {ours: number(key, self._told(key)) for key, ours in names.OWN_KEYS.items() if key in self._keys}
        plain = dict(zip(names.OWN_KEYS.values(), (8.0, 1.0, 4.0, 8192.0)))
        for factor in names.LLAMA3_FACTORS:
            given = plain | {"rope_factor": factor} | told
            wanted = names.llama3_frequencies(sizes["head_dim"], theta, *given.values())
            if held.shape == wanted.shape and np.allclose(held, wanted, rtol=1e-5):
                given["rope_original_len"] = int(given["rope_original_len"])
                return {"rope_scaling": "llama3", **given}
        raise UserError(f"{self._path}: {names.FREQUENCIES} is not a stretch of Llama 3's; it is not supported")

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor in float32, heads in halves, norms as Hugging Face has them."""
        tensor, heads = self._tensors[name], names.heads_of(name, self.model)
        rows, columns = (*index, slice(None), slice(None))[:2]
        if heads and self._row.permuted:
            rows = names.halves(heads, self.model.head_dim)[rows]
        found = dequantised(tensor, rows)
        found = found[:, columns] if found.ndim > 1 else found
        return found - np.float32(self._row.added) if names.is_norm(name) and self._row.added else found

    def write_tokenizer(self, folder: Path) -> Path:
        """Write tokenizer.json and what speaks of it, made of the file's own lists."""
        return gguf_tokenizer.write(self._path, self._told, folder)


def opened(path: Path) -> Any:
    """The reader of a file; a damaged or foreign one is a `UserError`."""
    from gguf import GGUFReader

    class Whole(GGUFReader):
        """The library's own takes what lies beyond the end of a file for empty, 2**50 times if a length says so."""

        def _get(self, offset, dtype, count=1, override_order=None):
            found = super()._get(offset, dtype, count, override_order)
            if len(found) < int(count):
                raise ValueError("it ends early")
            return found

    try:
        return Whole(path)
    except FAULTS as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is no whole GGUF file ({said}); get it again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def contents(path: Path, field: Any) -> Any:
    """The value of a key; `UserError` where it cannot be read."""
    try:
        return field.contents()
    except FAULTS as error:
        raise UserError(f"{path}: the key {field.name} is damaged; get the file again") from error


def dequantised(tensor: Any, rows: Any) -> np.ndarray:
    """Rows of a tensor in float32."""
    from gguf.quants import dequantize

    return dequantize(np.ascontiguousarray(tensor.data[rows]), tensor.tensor_type)


def whole(key: str, value: Any) -> int:
    """A whole number above 0."""
    ok = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
    require(ok, f"{key} is {str(value)[:40]}, no whole number above 0")
    return value


def number(key: str, value: Any) -> float:
    """A finite number of at least 0, as short as float32 allows: 1e-05, not 9.999999747378752e-06."""
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    require(ok, f"{key} is {str(value)[:40]}, no number")
    return float(str(np.float32(value)))
