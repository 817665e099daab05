"""What devices refuse, in one line with the fix. JAX's errors are known by name: nothing here imports JAX."""

import sys
import traceback
from collections.abc import Iterator

from chinchilla_jax.errors import UserError

SMALLER = {
    "prepare": "fewer --data.workers or --data.tokenizer-sentences",
    "pretrain": "more --train.microbatches, --model.remat full, or a smaller --train.batch-size or --train.seq-len",
    "evaluate": "a smaller --train.batch-size",
    "generate": "fewer --samples or --max-new-tokens",
}


def explained(error: BaseException | None, command: str) -> UserError | None:
    """The one line for memory that does not suffice or a device that does not start, also where a library has wrapped
    the error."""
    for each in chain(error):
        if out_of_memory(each):
            fix = SMALLER.get(command, "a smaller model")
            return UserError(f"out of memory: {first_line(each)}; try {fix}")
        if no_backend(each):
            return UserError(
                f"JAX does not start its devices: {first_line(each)}; `python -m chinchilla_jax doctor` says what is "
                "here, and JAX_PLATFORMS=cpu computes without an accelerator"
            )
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def out_of_memory(error: BaseException) -> bool:
    """Whether Python or XLA could not have the memory it asked for."""
    xla = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    return isinstance(error, MemoryError) or (
        xla and any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory"))
    )


def no_backend(error: BaseException) -> bool:
    """Whether JAX failed at starting a backend: in its own file for that, or anywhere in it while it has none.

    Of an array's function JAX takes the frames of that file out of the traceback.
    """
    if not isinstance(error, (RuntimeError, AssertionError)):
        return False
    frames = traceback.walk_tb(error.__traceback__)
    files = [frame.f_code.co_filename.replace("\\", "/") for frame, _ in frames]
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = bridge is None or bridge.backends_are_initialized()
    inside = any("/jax/_src/" in file for file in files[-1:])
    return (inside and not started) or any(file.endswith("jax/_src/xla_bridge.py") for file in files)


def first_line(error: BaseException) -> str:
    """What the error says, shortened, or else its name."""
    text = str(error).strip().partition("\n")[0]
    return text[:200] or type(error).__name__
