"""Streams in several files and far away read like one array, and what arrives is verified."""

from functools import partial

import numpy as np
import pytest
import xxhash

from chinchilla_jax.data import streams
from chinchilla_jax.data.stages.sharding import BlockSums
from chinchilla_jax.errors import UserError

SIZES = (5, 0, 7, 1, 30)
STREAM = np.random.default_rng(0).integers(1, 60_000, sum(SIZES)).astype("<u2")
STARTS = np.array([0, 3, 4, 12, 13, 40], np.uint64)


def parts_of(array: np.ndarray) -> list[np.ndarray]:
    """The stream, or anything as long, in parts of these sizes."""
    return np.split(array, np.cumsum(SIZES)[:-1])


def test_slices_of_shards_are_those_of_the_whole():
    shards = streams.Shards(parts_of(STREAM))
    assert len(shards) == len(STREAM) and (np.asarray(shards) == STREAM).all() and shards[-1] == STREAM[-1]
    for start in range(0, len(STREAM) + 2):
        assert start >= len(STREAM) or shards[start] == STREAM[start]
        for stop in range(0, len(STREAM) + 2):
            assert shards[start:stop].tolist() == STREAM[start:stop].tolist(), (start, stop)
    assert shards[3:40:4].tolist() == STREAM[3:40:4].tolist() and shards[:-3].dtype == STREAM.dtype


def test_documents_are_found_alike_in_every_kind_of_index():
    index = streams.Index(np.split(STARTS, [2, 2, 5]))
    marked = np.where(np.isin(np.arange(len(STREAM)), [*STARTS.tolist(), len(STREAM) - 1]), 0, STREAM)
    separators = streams.Separators(marked, 0, len(STARTS))
    assert len(index) == len(separators) == len(STARTS)
    rows = np.array([0, 3, 4, 5, 11, 12, 13, 36, 40])
    for length in (1, 2, 8, 50):
        expected = [
            (row, place - at)
            for row, at in enumerate(rows.tolist())
            for place in STARTS.tolist()
            if at < place < at + length
        ]
        for starts in (STARTS, index, separators):
            found = streams.boundaries(starts, rows, length)
            assert list(zip(*(side.tolist() for side in found))) == expected, (type(starts), length)


def remote(folder, block: int = 16, limit: int = 1 << 20) -> streams.Remote:
    """The stream in files, read as one far away: in blocks of 8 tokens."""
    (folder / "cache").mkdir(exist_ok=True)
    shards, start = [], 0
    for number, part in enumerate(part for part in parts_of(STREAM) if len(part)):
        path, sums = folder / f"{number}.bin", BlockSums(block)
        path.write_bytes(part.tobytes())
        sums.update(part.tobytes())
        shards.append(streams.Shard(str(path), partial(np.asarray, sums.end()), block, start, len(part)))
        start += len(part)
    return streams.Remote(shards, STREAM.dtype, folder / "cache", limit)


def test_a_remote_stream_fetches_each_block_once(tmp_path):
    tokens = remote(tmp_path)
    assert len(tokens) == len(STREAM)
    for start, stop in ((0, 0), (4, 6), (13, 14), (0, 43), (20, 36)):
        assert tokens[start:stop].tolist() == STREAM[start:stop].tolist(), (start, stop)
    assert tokens.fetched == STREAM.nbytes
    found = streams.ranges(tokens, np.array([1, 40]), np.array([3, 43]))
    assert [part.tolist() for part in found] == [STREAM[1:3].tolist(), STREAM[40:43].tolist()]
    again = remote(tmp_path)
    assert (np.asarray(again) == STREAM).all() and again.fetched == 0, "they lie in the folder"
    block = next((tmp_path / "cache").glob("3.bin.1.block"))
    block.write_bytes(b"x" * 16)
    assert (np.asarray(remote(tmp_path)) == STREAM).all(), "one that was damaged there is fetched again"
    assert xxhash.xxh3_64_intdigest(block.read_bytes()) == xxhash.xxh3_64_intdigest(STREAM[21:29].tobytes())


def test_blocks_that_are_not_used_go(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MEMORY", 40)
    tokens = remote(tmp_path, limit=40)
    for start in range(0, 43, 4):
        assert tokens[start : start + 4].tolist() == STREAM[start : start + 4].tolist()
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 40
    assert sum(array.nbytes for array in tokens._open.values()) <= 40


def test_what_arrives_damaged_or_not_at_all_is_refused(tmp_path):
    tokens = remote(tmp_path)
    (tmp_path / "3.bin").write_bytes(STREAM[13:].tobytes()[:-1] + b"?")
    assert tokens[13:21].tolist() == STREAM[13:21].tolist()
    with pytest.raises(UserError, match=r"3\.bin: damaged"):
        tokens[40:43]
    (tmp_path / "0.bin").unlink()
    with pytest.raises(UserError, match=r"0\.bin: cannot be read"):
        tokens[:2]
    assert not list((tmp_path / "cache").glob("0.bin*"))
