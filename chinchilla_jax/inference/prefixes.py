"""Beginnings of prompts that were read before: keys and values of whole chunks, found by a hash of all ids so far."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import jax
import numpy as np


class Prefixes:
    """Blocks of a cache by their keys, `most` bytes of them; those that were not used for longest leave first."""

    def __init__(self, most: int):
        self.most, self.bytes = most, 0
        self.blocks: OrderedDict[bytes, jax.Array] = OrderedDict()

    @staticmethod
    def keys(model: str, ids: Sequence[int], size: int) -> list[bytes]:
        """The keys of a text's whole chunks of `size` ids: hashes of the model's name and all ids up to their ends."""
        found = [model.encode()]
        for at in range(0, len(ids) - size + 1, size):
            chunk = np.asarray(ids[at : at + size], "<i4").tobytes()
            found.append(hashlib.blake2b(found[-1] + b"\0" + chunk, digest_size=16).digest())
        return found[1:]

    def keep(self, key: bytes, block: jax.Array) -> None:
        """Remember a new block, and forget others where there is no room."""
        if block.nbytes > self.most:
            return
        self.blocks[key] = block
        self.bytes += block.nbytes
        while self.bytes > self.most:
            self.bytes -= self.blocks.popitem(last=False)[1].nbytes

    def touch(self, keys: Sequence[bytes]) -> None:
        """Say that the chunks of a text were used: the last one leaves first, which is of no use without the others."""
        for key in reversed(keys):
            if key in self.blocks:
                self.blocks.move_to_end(key)
