"""A run as one GGUF file for llama.cpp, a tensor at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chinchilla_jax.config import ModelConfig, require
from chinchilla_jax.interop import gguf_lists
from chinchilla_jax.interop import gguf_names as names

# Our name of a type -> llama.cpp's names of the tensors' type and of the file's.
TYPES = {
    "float32": ("F32", "ALL_F32"),
    "float16": ("F16", "MOSTLY_F16"),
    "bfloat16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}
BLOCK = 32  # numbers of a row that share a scale in q8_0


class Tensor(Protocol):
    """A tensor of Hugging Face's: name, shape, and `make`, which gives it in float32."""

    name: str
    shape: tuple[int, ...]

    def make(self) -> np.ndarray:
        """The tensor."""


def write(
    path: Path, run_dir: Path, tensors: Sequence[Tensor], cfg: ModelConfig, context: int, dtype: str, **general: str
) -> dict[str, Any]:
    """Write `path`; {"architecture": ..., "notes": [...]}. `general`: name, license and the like of the file's keys."""
    import gguf

    arch = names.architecture_of(cfg)
    lists = gguf_lists.entries(run_dir, cfg.vocab_size)
    stretch = waves(cfg, arch)
    writer = gguf.GGUFWriter(path, arch)
    for key, value in general.items():
        writer.add_string(f"general.{key}", value)
    writer.add_file_type(gguf.LlamaFileType[TYPES[dtype][1]])
    if dtype == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in keys(cfg, context).items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_float32)(f"{arch}.{key}", value)
    if cfg.rope_scaling == "linear":
        writer.add_string(f"{arch}.rope.scaling.type", "linear")
        writer.add_float32(f"{arch}.rope.scaling.factor", cfg.rope_factor)
    for key, ours in names.OWN_KEYS.items() if stretch is not None else ():
        add(writer, key, getattr(cfg, ours))
    for key, value in lists.items():
        add(writer, f"tokenizer.{key}", value)
    kinds = [kind(x.shape, dtype) for x in tensors]
    for x, chosen in zip(tensors, kinds):
        size = int(np.prod(gguf.quant_shape_to_byte_shape(x.shape, chosen)))
        writer.add_tensor_info(names.to_gguf(x.name), x.shape, np.dtype(np.float32), size, chosen)
    if stretch is not None:
        writer.add_tensor_info(names.FREQUENCIES, stretch.shape, stretch.dtype, stretch.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for x, chosen in zip(tensors, kinds):
        writer.write_tensor_data(packed(x, cfg, arch, chosen))
    if stretch is not None:
        writer.write_tensor_data(stretch)
    writer.close()
    odd = [
        x.name for x, chosen in zip(tensors, kinds) if dtype == "q8_0" and len(x.shape) > 1 and chosen.name != "Q8_0"
    ]
    notes = (
        [f"{len(odd)} tensors, such as {odd[0]}, have rows of no multiple of {BLOCK} and stay float16"] if odd else []
    )
    return {"architecture": arch, "notes": notes}


def keys(cfg: ModelConfig, context: int) -> dict[str, int | float]:
    """The keys below the architecture."""
    sizes = {theirs: getattr(cfg, ours) for theirs, ours in names.SIZES.items()}
    return {
        **sizes,
        "context_length": context,
        "attention.head_count_kv": cfg.kv_heads or cfg.heads,
        "attention.value_length": cfg.head_dim,
        "rope.dimension_count": cfg.head_dim,
        "vocab_size": cfg.vocab_size,
        **{theirs: float(getattr(cfg, ours)) for theirs, ours in names.NUMBERS.items()},
    }


def add(writer: Any, key: str, value: Any) -> None:
    """A key of whatever kind its value is."""
    for kind, call in ((bool, "bool"), (int, "uint32"), (float, "float32"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            getattr(writer, f"add_{call}")(key, value)
            return
    raise TypeError(f"{key} is a {type(value).__name__}")


def kind(shape: tuple[int, ...], dtype: str) -> Any:
    """The type that a tensor is stored in: vectors stay float32, odd rows float16 where the rest is quantised."""
    import gguf

    if len(shape) < 2:
        return gguf.GGMLQuantizationType.F32
    odd = dtype == "q8_0" and shape[-1] % BLOCK
    return gguf.GGMLQuantizationType["F16" if odd else TYPES[dtype][0]]


def packed(tensor: Tensor, cfg: ModelConfig, arch: str, chosen: Any) -> np.ndarray:
    """The numbers as they are stored."""
    import gguf

    row, heads = names.ARCHITECTURES[arch], names.heads_of(tensor.name, cfg)
    found = np.asarray(tensor.make(), np.float32)
    if heads and row.permuted:
        found = found[names.neighbours(heads, cfg.head_dim)]
    if names.is_norm(tensor.name) and row.added:
        found = found + np.float32(row.added)
    with np.errstate(over="ignore"):
        stored = gguf.quants.quantize(np.ascontiguousarray(found), chosen)
    fits = chosen.name != "F16" or bool(np.isfinite(stored).all())
    require(fits, f"{tensor.name} does not fit into float16; choose --dtype bfloat16")
    return stored


def waves(cfg: ModelConfig, arch: str) -> np.ndarray | None:
    """What llama.cpp divides the rotary frequencies by where they are stretched as Llama 3's are."""
    if cfg.rope_scaling != "llama3":
        return None
    require(
        arch == "llama",
        f"llama.cpp stretches rotary waves as Llama 3's for llama alone, not for {arch}; use --format hf",
    )
    given = cfg.rope_factor, cfg.rope_low_freq, cfg.rope_high_freq, cfg.rope_original_len
    return names.llama3_frequencies(cfg.head_dim, cfg.rope_theta, *given)
