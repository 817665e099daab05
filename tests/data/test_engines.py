"""The local engine: results in order, results that are there already, and workers that die."""

import json
import os

import numpy as np
import pytest

from chinchilla_jax.data import engines, fs
from chinchilla_jax.data.stages import job, rows
from chinchilla_jax.data.stages.sharding import BlockSums
from chinchilla_jax.errors import UserError


@pytest.fixture
def root(tmp_path):
    job.save(str(tmp_path), {"config": {}, "store": "", "bits": 0, "segment": 1 << 20})
    return str(tmp_path)


def merge_tasks(root, count):
    """Tasks of `merge` that have their results already but for the last."""
    tasks = [{"name": f"{n:04}", "partition": n, "sources": 1} for n in range(count)]
    for n in range(count - 1):
        fs.write(f"{root}/merge/{n:04}.json", json.dumps({"n": n}).encode())
    return tasks


def test_results_come_in_order_and_what_is_there_is_not_done_again(root):
    tasks = merge_tasks(root, 4)
    done = []
    with pytest.raises(FileNotFoundError):  # the last has no segments to merge
        engines.Local(1, 0).map(root, "1", "merge", tasks, done.append)
    assert [task["partition"] for task in done] == [0, 1, 2]
    assert engines.Local(1, 0).map(root, "1", "merge", tasks[:3], done.append) == [{"n": 0}, {"n": 1}, {"n": 2}]


def die(*task):
    """What the kernel does to a process that takes too much memory."""
    os._exit(9)


def test_a_worker_that_dies_is_tried_again_and_then_one_line(root, monkeypatch):
    monkeypatch.setattr(engines, "SHARE", 1)
    tasks, made = merge_tasks(root, 3), []
    start = engines.Local._pass
    monkeypatch.setattr(engines.Local, "_pass", lambda self, *a: made.append(1) or start(self, *a))
    monkeypatch.setattr(engines, "run_task", die)
    with pytest.raises(UserError, match=r"died 3 times.*lower --data\.workers"):
        engines.Local(2, 100).map(root, "1", "merge", tasks, lambda task: None)
    assert len(made) == 3


def test_partitions_hold_about_their_size():
    shapes = {size: job.shape(size) for size in (0, 10, 9 << 20, 3 << 30, 5 << 40)}
    assert [s["bits"] for s in shapes.values()] == [0, 0, 1, 9, 12]
    assert shapes[5 << 40]["segment"] > 1 << 30


@pytest.mark.parametrize("bits", [0, 1, 5])
def test_boundaries_cut_the_hashes_evenly(bits):
    keys = np.sort(np.random.default_rng(0).integers(0, 2**64, 4096, dtype=np.uint64))
    counts = np.diff(np.append(np.searchsorted(keys, rows.boundaries(bits)), len(keys)))
    assert len(counts) == 1 << bits and counts.sum() == 4096 and counts.max() < 2 * counts.mean() + 1


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_block_sums_do_not_depend_on_how_the_bytes_come(cut):
    import xxhash

    content = os.urandom(1000)
    sums = BlockSums(64)
    for at in range(0, 1000, cut):
        sums.update(content[at : at + cut])
    assert sums.end().tolist() == [xxhash.xxh3_64_intdigest(content[at : at + 64]) for at in range(0, 1000, 64)]
