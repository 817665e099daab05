"""What Hugging Face calls every parameter of ours, and how a tensor of theirs lies in a leaf of ours.

One table, read in both directions; other formats (GGUF, PEFT) translate their names to these. Leaves below `blocks` are
stacked over layers, theirs are a tensor a layer. A matrix of theirs is (out, in), with heads flattened.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from chinchilla_jax.config import ModelConfig, require
from chinchilla_jax.interop.heads import HEADS
from chinchilla_jax.model import transformer
from chinchilla_jax.optim.paths import named


class Name(NamedTuple):
    """A leaf of ours, the name of theirs with {n} for the layer, and the number of our leading axes that are inputs.

    A matrix with no inputs is a vector; None leaves a tensor as it is.
    """

    ours: str
    theirs: str
    inputs: int | None = None

    @property
    def stacked(self) -> bool:
        """Whether ours holds all layers."""
        return "{n}" in self.theirs

    def flattened(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of theirs, for a layer's shape of ours."""
        if self.inputs is None:
            return shape
        inner, outer = shape[: self.inputs], shape[self.inputs :]
        return (math.prod(outer), math.prod(inner)) if inner else (math.prod(outer),)

    def index(self, index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
        """The part of theirs that is `index`, whole slices but for the first of each group of axes, of ours."""
        if self.inputs is None:
            return index
        groups = [(index[self.inputs :], shape[self.inputs :]), (index[: self.inputs], shape[: self.inputs])]
        return tuple(_joined(*group) for group in groups if group[1])

    def to_ours(self, theirs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A layer of ours, or the part of it with this shape."""
        return theirs.reshape(shape) if theirs.ndim < 2 or self.inputs is None else theirs.T.reshape(shape)

    def to_theirs(self, ours: np.ndarray) -> np.ndarray:
        """A tensor of theirs from a layer of ours."""
        if not self.inputs:
            return ours.reshape(self.flattened(ours.shape))
        return ours.reshape(self.flattened(ours.shape)[::-1]).T


def _joined(index: tuple[slice, ...], shape: tuple[int, ...]) -> slice:
    """The slice of axes laid end to end, of which only the first may be cut."""
    if any(part.indices(size) != (0, size, 1) for part, size in zip(index[1:], shape[1:])):
        raise ValueError(f"only the first axis of {shape} may be cut, not {index}")
    start, stop, _ = index[0].indices(shape[0])
    rest = math.prod(shape[1:])
    return slice(start * rest, stop * rest)


LAYER = "model.layers.{n}."
PROJECTIONS = {  # ours -> theirs, inputs
    "attention/query": ("self_attn.q_proj", 1),
    "attention/key": ("self_attn.k_proj", 1),
    "attention/value": ("self_attn.v_proj", 1),
    "attention/out": ("self_attn.o_proj", 2),
    "mlp/gate": ("mlp.gate_proj", 1),
    "mlp/up": ("mlp.up_proj", 1),
    "mlp/down": ("mlp.down_proj", 1),
}
TABLE = (
    Name("embed/table", "model.embed_tokens.weight"),
    Name("unembed/table", "lm_head.weight"),
    Name("norm/scale", "model.norm.weight"),
    Name("blocks/norm_attention/scale", LAYER + "input_layernorm.weight"),
    Name("blocks/norm_mlp/scale", LAYER + "post_attention_layernorm.weight"),
    Name("blocks/attention/query_norm/scale", LAYER + "self_attn.q_norm.weight"),
    Name("blocks/attention/key_norm/scale", LAYER + "self_attn.k_norm.weight"),
    *(Name(f"blocks/{ours}/kernel", f"{LAYER}{theirs}.weight", n) for ours, (theirs, n) in PROJECTIONS.items()),
    *(Name(f"blocks/{ours}/bias", f"{LAYER}{theirs}.bias", 0) for ours, (theirs, _) in PROJECTIONS.items()),
    *(Name(f"heads/{ours}/kernel", f"{head.module}.weight") for ours, head in HEADS.items()),
    *(Name(f"heads/{ours}/bias", f"{head.module}.bias") for ours, head in HEADS.items()),
)
BY_PATH = {name.ours: name for name in TABLE}


def find(path: str) -> Name:
    """The row of a leaf; `UserError` for one that other formats have no name for."""
    require(path in BY_PATH, f"{path} has no counterpart in the models of Hugging Face and GGUF")
    return BY_PATH[path]


def their_shapes(cfg: ModelConfig, heads: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, tuple[int, ...]]:
    """Every tensor that a model of this shape has in their files; `heads` are the shapes of a head's leaves."""
    found = {find(f"heads/{leaf}").theirs: shape for leaf, shape in (heads or {}).items()}
    for path, leaf in named(transformer.abstract(cfg)).items():
        name = find(path)
        shape = name.flattened(leaf.shape[1:] if name.stacked else leaf.shape)
        found |= {name.theirs.format(n=n): shape for n in (range(cfg.layers) if name.stacked else [0])}
    return found
