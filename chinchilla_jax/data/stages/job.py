"""What all stages of one `prepare` share: the folder they work in, and settings that are fixed for all of them."""

import functools
import json
from dataclasses import dataclass
from typing import Any

from chinchilla_jax.config import DataConfig, from_dict
from chinchilla_jax.data import fs

JOB = "job.json"
PARTITION = 8 << 20  # bytes of text that a task takes
PARTITIONS = 4096  # most tasks of a stage; beyond that they grow


@dataclass(frozen=True)
class Job:
    """The folder `root` (a path or a URL) and what `job.json` in it says."""

    root: str
    store: str  # the folder of the finished files
    config: DataConfig
    bits: int
    segment: int

    @property
    def partitions(self) -> int:
        """Ranges that the hashes are cut into."""
        return 1 << self.bits

    def path(self, *names: str) -> str:
        """A path below the root."""
        return fs.join(self.root, *names)


def shape(size: int, remote: bool = False) -> dict[str, int]:
    """How `size` bytes of input are cut: bits of the hash that name a partition, bytes of a segment.

    Every partition is read from every segment: where that goes over the network there are fewer of both.
    """
    least, most = (8 * PARTITION, PARTITIONS // 2) if remote else (PARTITION, PARTITIONS)
    return {"bits": max(0, min(most, -(-size // least)) - 1).bit_length(), "segment": max(least, size // most)}


def save(root: str, values: dict[str, Any]) -> None:
    """Write the job's settings."""
    fs.write(fs.join(root, JOB), json.dumps(values, indent=1).encode())


@functools.lru_cache(4)
def load(root: str, version: str) -> Job:
    """The job in `root`; `version` is anything that changes when the job does."""
    found = json.loads(fs.read(fs.join(root, JOB)))
    config = from_dict(DataConfig, found["config"])
    return Job(root, found["store"], config, found["bits"], found["segment"])
