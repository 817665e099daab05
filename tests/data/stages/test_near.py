"""Pairs and clusters of near-duplicates beside plain Python."""

import itertools

import numpy as np
import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.config.corpus import NearConfig
from chinchilla_jax.data import fs
from chinchilla_jax.data.filters import minhash
from chinchilla_jax.data.stages import near
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.rows import ROW, VALID


def place(tmp_path, members: list[int], own: dict[int, int], mode: str) -> tuple[Job, list[dict], list[np.ndarray]]:
    """A job of 60 documents in 4 partitions; those of the same member number have equal keys and sketches."""
    job = Job(str(tmp_path), "", DataConfig(near=NearConfig(mode)), 2, 1 << 20)
    draw, counts, rows = np.random.default_rng(0), [20, 0, 25, 15], []
    keys = draw.integers(1, 2**63, (len(set(members)), minhash.BANDS)).astype(np.uint64)
    sketches = draw.integers(0, 256, (len(set(members)), minhash.HASHES)).astype(np.uint8)
    first = np.concatenate([[0], np.cumsum(counts)])
    for partition, count in enumerate(counts):
        some = members[first[partition] : first[partition + 1]]
        table = np.zeros(count, ROW)
        table["key"] = np.arange(first[partition], first[partition + 1])
        table["size"] = 10 + table["key"]
        table["own"] = [own.get(int(key), 0) for key in table["key"]]
        fs.write(job.path("merge", f"{partition:04}.rows"), table.tobytes())
        fs.write(job.path("merge", f"{partition:04}.bands"), np.ascontiguousarray(keys[some].T).tobytes())
        fs.write(job.path("merge", f"{partition:04}.sketch"), sketches[some].tobytes())
        rows.append(table)
    fs.write(job.path("segments"), b"one")
    fs.write(job.path("read", "one.text"), b"some text")
    return job, near.tasks(counts), rows


@pytest.mark.parametrize("chunk", [1 << 22, 16])
@pytest.mark.parametrize("mode", ["drop", "group"])
def test_whole_clusters_keep_their_leader(tmp_path, monkeypatch, chunk, mode):
    monkeypatch.setattr(near, "CHUNK", chunk)
    members = [n % 7 if n % 3 else 7 + n for n in range(60)]
    members = [sorted(set(members)).index(m) for m in members]
    job, tasks, rows = place(tmp_path, members, {13: VALID}, mode)
    assert len(tasks) == minhash.BANDS * (1 if chunk > 60 else 4)
    for task in tasks:
        near.run(job, task)
    expected = {}
    for number, member in enumerate(members):
        expected.setdefault(member, []).append(number)
    clusters = {m: sorted(c, key=lambda n: (n != 13, n)) for m, c in expected.items() if len(c) > 1}
    found = near.clusters(job, tasks, 0.9)
    assert (found["clusters"], found["documents"]) == (len(clusters), sum(map(len, clusters.values())))
    rule = found["rules"]["near_duplicate"]
    assert rule["documents"] == found["documents"] - found["clusters"] and rule["examples"][0][2] == "some text"
    assert all(alike > 0.9 for _, alike, _ in rule["examples"])
    followers = set(itertools.chain.from_iterable(cluster[1:] for cluster in clusters.values()))
    first, kept, leader = 0, [], {}
    for partition, table in enumerate(rows):
        near.settle(job, {"name": f"{partition:04}", "partition": partition, "first": first, "sources": 1})
        first += len(table)
        kept += np.frombuffer(fs.read(job.path("settle", f"{partition:04}.rows")), ROW)["key"].tolist()
        if mode == "group":
            lead = np.frombuffer(fs.read(job.path("settle", f"{partition:04}.leaders")), ROW)
            leader |= dict(zip(table["key"].tolist(), zip(lead["key"].tolist(), lead["size"].tolist())))
    if mode == "drop":
        assert kept == [n for n in range(60) if n not in followers]
        return
    assert kept == list(range(60))
    for cluster in clusters.values():
        assert {leader[n] for n in cluster} == {(cluster[0], sum(10 + n for n in cluster))}


def test_pairs_are_told_apart_by_their_sketches(tmp_path):
    job, tasks, _ = place(tmp_path, [n // 2 for n in range(60)], {}, "drop")
    for task in tasks:
        near.run(job, task)
    first = np.array(tasks[0]["first"])
    pairs = near.distinct(np.array([(0, 1), (0, 2), (4, 5), (0, 1)], near.PAIR))
    assert near.verified(job, pairs, first, 0.5).tolist() == [(0, 1), (4, 5)]
    assert near.distinct(np.empty(0, near.PAIR)).tolist() == []
