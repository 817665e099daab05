"""The memory of this machine that the process may use; no JAX, so that `doctor` can ask too."""

import contextlib
import os
from pathlib import Path


def host_memory(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes of memory that this process may use: the machine's, or the least that one of its cgroups allows."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            place, name = (root, "memory.max") if not kinds else (root / "memory", "memory.limit_in_bytes")
            if kinds and "memory" not in kinds.split(","):
                continue
            own = place / path.lstrip("/")
            for folder in (own, *own.parents):
                with contextlib.suppress(OSError, ValueError):  # "max", or no such file in a container
                    found.append(float((folder / name).read_text()))
                if folder == place:
                    break
    return min(found)
