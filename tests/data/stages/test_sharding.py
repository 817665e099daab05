"""A stream put together from partitions, and the checksums of its blocks."""

import os

import numpy as np
import pytest

from chinchilla_jax.data import fs
from chinchilla_jax.data.manifest import SPLITS
from chinchilla_jax.data.stages import sharding
from chinchilla_jax.data.stages.sharding import BlockSums
from tests.data.stages import small


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_block_sums_do_not_depend_on_how_the_bytes_come(cut):
    import xxhash

    content = os.urandom(1000)
    sums = BlockSums(64)
    for at in range(0, 1000, cut):
        sums.update(content[at : at + cut])
    assert sums.end().tolist() == [xxhash.xxh3_64_intdigest(content[at : at + 64]) for at in range(0, 1000, 64)]


LENGTHS = {  # of documents, by partition, split and source
    (0, "train"): ([3, 1], []), (1, "train"): ([], [2, 2]), (2, "train"): ([5], [1]), (3, "train"): ([4], [6, 1, 1]),
    (0, "valid"): ([2], []), (1, "valid"): ([], []), (2, "valid"): ([], [3]), (3, "valid"): ([1], [1]),
}  # fmt: skip


def encode(job) -> tuple[list[dict], dict[str, list[list[int]]]]:
    """Files as stage `encode` writes them, of tokens that count up; and the documents of each split in their order."""
    groups, streams, token = [], {(split, source): [] for split in SPLITS for source in (0, 1)}, 100
    for partition in range(4):
        tokens, lengths, group = [], [], {}
        for split in SPLITS:
            group[split] = []
            for source, sizes in enumerate(LENGTHS[partition, split]):
                for size in sizes:
                    streams[split, source].append([*range(token, token + size)])
                    token += size
                    tokens += streams[split, source][-1]
                lengths += sizes
                group[split].append([len(sizes), sum(sizes), 0])
        groups.append(group)
        fs.write(job.path("encode", f"{partition:04}.bin"), np.array(tokens, "<u2").tobytes())
        fs.write(job.path("encode", f"{partition:04}.lengths"), np.array(lengths, "<u8").tobytes())
    return groups, {split: streams[split, 0] + streams[split, 1] for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("most", [1, 4, 7, 100])
def test_shards_together_are_the_stream_source_by_source(tmp_path, split, most):
    import xxhash

    job = small.job(tmp_path)
    groups, expected = encode(job)
    documents = expected[split]
    table = sharding.pieces(groups, split)
    fs.write(job.path(f"{split}.pieces"), table.tobytes())
    whole = [token for document in documents for token in document]
    tokens, starts = [], []
    for first in range(0, len(whole), most):
        last = min(first + most, len(whole))
        task = {"split": split, "file": "f", "index": "i", "blocks": "b", "block": 8, "first": first, "last": last,
                "end": last == len(whole), "dtype": "<u2", "separator": 7}  # fmt: skip
        found = sharding.run(job, task)
        content = {name: (tmp_path / "store" / name).read_bytes() for name in "fib"}
        for name, entry in found["files"].items():
            assert entry == {"bytes": len(content[name]), "xxh3_128": xxhash.xxh3_128_hexdigest(content[name])}
        sums = [xxhash.xxh3_64_intdigest(content["f"][at : at + 8]) for at in range(0, len(content["f"]), 8)]
        assert np.load(tmp_path / "store/b").tolist() == sums
        tokens += np.frombuffer(content["f"], "<u2").tolist()
        starts += np.load(tmp_path / "store/i").tolist()
        assert found["documents"] == len(np.load(tmp_path / "store/i"))
    assert tokens == [*whole, 7]
    assert starts == np.cumsum([0, *map(len, documents)])[:-1].tolist()
