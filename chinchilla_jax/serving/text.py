"""How log-probabilities name a token."""

from chinchilla_jax.data.tokenizer_base import BaseTokenizer


def spelled(tokenizer: BaseTokenizer, id: int) -> str:
    """A token as log-probabilities name it: its text, or its bytes where they are no text by themselves."""
    piece = tokenizer.pieces[id] if id < tokenizer.size else b""
    try:
        return piece.decode() or names(tokenizer).get(id, f"<{id}>")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def names(tokenizer: BaseTokenizer) -> dict[int, str]:
    """id -> name of the control pieces."""
    return {id: name for name, id in tokenizer.controls.items()}
