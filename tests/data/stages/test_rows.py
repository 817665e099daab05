"""Tables of documents on disk: what is written by segment comes back by partition."""

import numpy as np
import pytest

from chinchilla_jax.config.corpus import NearConfig
from chinchilla_jax.data import fs
from chinchilla_jax.data.stages import rows
from tests.data.stages import small


@pytest.mark.parametrize("bits", [0, 1, 5])
def test_boundaries_cut_the_hashes_evenly(bits):
    keys = np.sort(np.random.default_rng(0).integers(0, 2**64, 4096, dtype=np.uint64))
    counts = np.diff(np.append(np.searchsorted(keys, rows.boundaries(bits)), len(keys)))
    assert len(counts) == 1 << bits and counts.sum() == 4096 and counts.max() < 2 * counts.mean() + 1


def test_a_partition_is_gathered_from_all_segments(tmp_path):
    """Rows, texts and further arrays with a row a document, each sorted by hash within a segment."""
    job = small.job(tmp_path)
    texts = [[f"{segment} {n}" for n in range(9)] for segment in range(3)]
    small.segments(job, *([(0, "", text) for text in some] for some in texts))
    names, found = rows.segment_names(job), []
    for name in names:  # an array beside the rows: the key again
        held = np.frombuffer(fs.read(job.path("read", f"{name}.rows")), rows.ROW)
        assert (np.diff(held["key"].astype(object)) > 0).all()
        fs.write(job.path("read", f"{name}.extra"), held["key"].tobytes())
    for number in range(job.partitions):
        part = rows.read_partition(job, number)
        assert (rows.read_partition(job, number, "extra", np.dtype("<u8")) == part["key"]).all()
        held = rows.read_texts(job, number)
        for row, text in zip(part, small.texts_in(job, part)):
            start, block = held[int(row["segment"])]
            at = int(row["offset"]) - start
            assert block[at : at + int(row["size"])].decode() == text and at >= 0
            found.append(text)
        assert sum(len(block) for _, block in held.values()) == part["size"].sum()
    assert sorted(found) == sorted(text for some in texts for text in some)


def test_the_beginning_of_a_document_may_end_inside_a_character(tmp_path):
    job = small.job(tmp_path, bits=0)
    small.segments(job, [(0, "", "x" + "海" * 900)])
    assert rows.heads(job, rows.read_partition(job, 0)) == ["x" + "海" * 199]


def test_rows_are_those_of_the_last_stage_that_changed_them(tmp_path):
    """Of merging, or of what settled near-duplicates; in groups a document has a leader."""
    for number, name in enumerate(("merge/0000.rows", "settle/0000.rows", "settle/0000.leaders")):
        table = np.zeros(1, rows.ROW)
        table["key"] = number
        fs.write(str(tmp_path / name), table.tobytes())
    for mode, expected in (("off", (0, 0)), ("drop", (1, 1)), ("group", (1, 2))):
        job = small.job(tmp_path, near=NearConfig(mode))
        assert (rows.merged(job, 0)["key"][0], rows.leaders(job, 0)["key"][0]) == expected
