"""Stage `merge`: the documents of a range of hashes in their final order, without exact duplicates."""

import numpy as np

from chinchilla_jax.data import fs
from chinchilla_jax.data.filters.chain import EXAMPLES
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.rows import BANDS, SKETCH, final_order, heads, read_partition


def run(job: Job, task: dict) -> dict:
    """Write the rows of a partition; gives the number of duplicates by source, and some of them with their copies."""
    rows = read_partition(job, task["partition"])
    order = final_order(rows)
    rows = rows[order]
    again = np.zeros(len(rows), bool)
    if job.config.deduplicate and len(rows):
        again[1:] = (rows["key"][1:] == rows["key"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
    kept = rows[~again]
    fs.write(job.path("merge", f"{task['name']}.rows"), kept.tobytes())
    if job.config.near.mode != "off":
        some = order[~again]
        bands = read_partition(job, task["partition"], "bands", BANDS)[some]
        fs.write(job.path("merge", f"{task['name']}.bands"), np.ascontiguousarray(bands.T).tobytes())
        fs.write(
            job.path("merge", f"{task['name']}.sketch"),
            read_partition(job, task["partition"], "sketch", SKETCH)[some].tobytes(),
        )
    _, place, copies = np.unique(rows["key"][again], return_index=True, return_counts=True)
    some = rows[again][place[:EXAMPLES]]
    return {
        "examples": [list(each) for each in zip(some["key"].tolist(), copies.tolist(), heads(job, some))],
        "documents": len(kept),
        "duplicates": np.bincount(rows["source"][again].astype(np.int64), minlength=task["sources"]).tolist(),
    }
