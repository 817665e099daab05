"""Plain text with a loss on every token."""

from chinchilla_jax.tasks.encode import Encoder
from chinchilla_jax.tasks.kinds.kind import Kind

KIND = Kind(
    "text", Encoder.text, {"loss": False, "bits_per_byte": False}, reads=("text",), in_bytes=True, template="plain",
    generates=True, sources=("causal",), follows=("sampling",),
)  # fmt: skip
