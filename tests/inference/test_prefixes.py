"""What is kept of prompts: its bound, what leaves first, and keys that tell every beginning from every other."""

import numpy as np

from chinchilla_jax.inference.prefixes import Prefixes


def test_what_is_kept_has_its_bound_and_the_least_used_leaves():
    kept, block = Prefixes(1000), np.zeros(100, np.float32)
    keys = kept.keys("model", range(4), 1)
    for key in keys:
        kept.keep(key, block)
        assert kept.bytes == sum(b.nbytes for b in kept.blocks.values()) <= 1000
    assert list(kept.blocks) == keys[2:]
    kept.keep(b"large", np.zeros(1001, np.int8))
    assert b"large" not in kept.blocks
    kept.touch(keys[2:])
    kept.keep(b"new", block)
    assert list(kept.blocks) == [keys[2], b"new"], "the end of a text leaves before its beginning"


def test_keys_are_of_whole_chunks_and_of_all_that_stands_before():
    """Equal for equal beginnings alone, whatever follows them; another model has others."""
    keys = Prefixes.keys
    assert [len(keys("m", range(n), 4)) for n in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]
    two = keys("m", [1, 2, 3, 4], 2)
    assert keys("m", [1, 2, 3, 4, 5], 2) == two and keys("m", [1, 2, 9], 2) == two[:1]
    others = [("n", [1, 2]), ("m", [2, 1]), ("m", [258, 0]), ("m", [1, 513]), ("m", [3, 4])]
    assert len({*two, *(keys(model, ids, 2)[0] for model, ids in others), keys("m", [5, 6, 3, 4], 2)[1]}) == 8
