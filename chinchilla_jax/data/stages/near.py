"""Near-duplicates: stage `near` finds pairs, `clusters` joins them, stage `settle` keeps one of each cluster.

Documents are numbered in their final order, so nothing depends on the order in which they were read.
"""

import numpy as np

from chinchilla_jax.data import fs
from chinchilla_jax.data.filters import minhash
from chinchilla_jax.data.filters.chain import EXAMPLES
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.rows import ROW, SKETCH, VALID, heads

CHUNK = 1 << 22  # documents, or pairs, that are looked at together
PAIR = np.dtype([("a", "<u8"), ("b", "<u8")])


def tasks(documents: list[int]) -> list[dict]:
    """A task for every band, or for every part of the keys of a band where there are many documents."""
    parts = 1 << max(0, (-(-sum(documents) // CHUNK) - 1).bit_length())
    first = [0, *np.cumsum(documents).tolist()]
    return [
        {"name": f"{band:02}-{part:04}", "band": band, "part": part, "parts": parts, "first": first}
        for band in range(minhash.BANDS)
        for part in range(parts)
    ]


def run(job: Job, task: dict) -> dict:
    """Write pairs of documents with the same key of a band: each with the one before and with the first."""
    keys, numbers = [], []
    shift = np.uint64(64 - (task["parts"] - 1).bit_length()) if task["parts"] > 1 else None
    for partition, (first, last) in enumerate(zip(task["first"], task["first"][1:])):
        size = (last - first) * 8
        found = np.frombuffer(fs.read(job.path("merge", f"{partition:04}.bands"), task["band"] * size, size), "<u8")
        mine = np.flatnonzero((found != 0) & (found >> shift == task["part"] if shift is not None else True))
        keys.append(found[mine])
        numbers.append(mine.astype(np.uint64) + np.uint64(first))
    key, number = np.concatenate(keys), np.concatenate(numbers)
    order = np.lexsort((number, key))
    key, number = key[order], number[order]
    again = np.flatnonzero(key[1:] == key[:-1]) + 1
    begin = np.maximum.accumulate(np.where(np.append(True, key[1:] != key[:-1]), np.arange(len(key)), 0))
    pairs = np.empty(2 * len(again), PAIR)
    pairs["a"], pairs["b"] = np.append(number[again - 1], number[begin[again]]), np.append(number[again], number[again])
    fs.write(job.path("near", f"{task['name']}.pairs"), distinct(pairs).tobytes())
    return {"pairs": len(pairs)}


def distinct(pairs: np.ndarray) -> np.ndarray:
    """Each pair once, in order (numpy sorts records field by field only in Python's time)."""
    pairs = pairs[np.lexsort((pairs["b"], pairs["a"]))]
    new = (pairs["a"][1:] != pairs["a"][:-1]) | (pairs["b"][1:] != pairs["b"][:-1])
    return pairs[np.append(True, new)] if len(pairs) else pairs


def clusters(job: Job, tasks: list[dict], threshold: float) -> dict[str, int]:
    """Join the pairs that are near enough to clusters, and write for each document of one which is its leader.

    The leader is the first that a source holds out, or else the first. Gives how many pairs and clusters there are, and
    some followers with their similarity to the leader.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first = np.array(tasks[0]["first"], np.int64)
    found = [np.frombuffer(fs.read(job.path("near", f"{task['name']}.pairs")), PAIR) for task in tasks]
    pairs = distinct(np.concatenate(found))
    near = [verified(job, pairs[at : at + CHUNK], first, threshold) for at in range(0, len(pairs), CHUNK)]
    pairs = np.concatenate([np.empty(0, PAIR), *near])
    members = np.unique(np.concatenate([pairs["a"], pairs["b"]]))
    a, b = np.searchsorted(members, pairs["a"]), np.searchsorted(members, pairs["b"])
    graph = coo_matrix((np.ones(len(pairs), bool), (a, b)), (len(members), len(members)))
    count, label = connected_components(graph, directed=False) if len(members) else (0, np.empty(0, np.int32))
    rows = select(job, members, first, "rows", ROW)
    order = np.lexsort((members, rows["own"] != VALID, label))
    begin = np.flatnonzero(np.append(True, label[order][1:] != label[order][:-1])) if len(order) else order
    leader = np.empty(len(members), np.int64)
    leader[order] = np.repeat(order[begin], np.diff(np.append(begin, len(order))))
    fs.write(job.path("members"), np.stack([members, members[leader]]).astype("<u8").tobytes())
    follows = np.flatnonzero(leader != np.arange(len(members)))
    some = follows[:EXAMPLES]
    alike = similar(job, members[some], members[leader[some]], first)
    examples = [list(each) for each in zip(members[some].tolist(), alike.tolist(), heads(job, rows[some]))]
    rules = {"near_duplicate": {"documents": len(follows), "examples": examples}}
    rows["size"] = np.bincount(label, rows["size"].astype(np.float64), count).astype(np.uint64)[label]
    fs.write(job.path("members.rows"), rows[leader].tobytes())
    return {"pairs": len(pairs), "clusters": int(count), "documents": len(members), "rules": rules}


def verified(job: Job, pairs: np.ndarray, first: np.ndarray, threshold: float) -> np.ndarray:
    """The pairs whose sketches agree well enough."""
    return pairs[similar(job, pairs["a"], pairs["b"], first) >= threshold]


def similar(job: Job, a: np.ndarray, b: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The estimated similarity of pairs of documents with these numbers, (P,)."""
    some = np.unique(np.concatenate([a, b]))
    sketches = select(job, some, first, "sketch", SKETCH)
    found = np.zeros(len(a))
    for at in range(0, len(a), 1 << 16):
        part = slice(at, at + (1 << 16))
        ours, theirs = (sketches[np.searchsorted(some, side[part])] for side in (a, b))
        found[part] = minhash.similarity(ours, theirs)
    return found


def select(job: Job, numbers: np.ndarray, first: np.ndarray, kind: str, dtype: np.dtype) -> np.ndarray:
    """The rows (or sketches) of documents with these rising numbers."""
    cut = np.searchsorted(numbers.astype(np.int64), first)
    shape = (len(numbers), *dtype.shape)
    found = np.empty(shape, dtype.base)
    for partition in np.flatnonzero(np.diff(cut)).tolist():
        start, stop = cut[partition], cut[partition + 1]
        held = np.frombuffer(fs.read(job.path("merge", f"{partition:04}.{kind}")), dtype)
        found[start:stop] = held[numbers[start:stop].astype(np.int64) - first[partition]]
    return found


def settle(job: Job, task: dict) -> dict:
    """Stage `settle`: write the rows of a partition without followers, or with their leaders beside them.

    Gives the number of followers by source.
    """
    rows = np.frombuffer(fs.read(job.path("merge", f"{task['name']}.rows")), ROW)
    members, leader = np.frombuffer(fs.read(job.path("members")), "<u8").reshape(2, -1).astype(np.int64)
    start, stop = np.searchsorted(members, [task["first"], task["first"] + len(rows)])
    own = members[start:stop] - task["first"]
    follower = np.zeros(len(rows), bool)
    follower[own] = members[start:stop] != leader[start:stop]
    sources = np.bincount(rows["source"][follower].astype(np.int64), minlength=task["sources"]).tolist()
    if job.config.near.mode == "drop":
        fs.write(job.path("settle", f"{task['name']}.rows"), rows[~follower].tobytes())
        return {"near": sources}
    leaders = rows.copy()
    found = fs.read(job.path("members.rows"), int(start) * ROW.itemsize, int(stop - start) * ROW.itemsize)
    leaders[own] = np.frombuffer(found, ROW)
    leaders["follows"] = follower
    fs.write(job.path("settle", f"{task['name']}.rows"), rows.tobytes())
    fs.write(job.path("settle", f"{task['name']}.leaders"), leaders.tobytes())
    return {"near": sources}
