"""What the host's own memory costs on a CPU.

XLA:CPU allocates its temporaries anew for every step, and glibc gives such large pieces back to the kernel at once, so
that every step pays for zeroed pages again: a fifth of a small step. Kept pages cost resident memory instead.
"""

import ctypes
import importlib.util
import platform
from importlib import metadata

import jax

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next step, if this process will compute on a CPU; whether it does.

    Must come before JAX starts its threads (the first `jax.devices()`), which is why it cannot ask JAX for the
    platform. Lasts as long as the process.
    """
    if accelerator_possible() or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1))
    return all(libc.mallopt(name, value) for name, value in settings)


def accelerator_possible() -> bool:
    """Whether JAX may find something better than a CPU: a plug-in is installed and the CPU was not asked for."""
    if jax.config.jax_platforms == "cpu":
        return False
    return bool(metadata.entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu") is not None
