"""Stage `encode`: the documents of a range of hashes as tokens, by split and source."""

import functools
import tempfile
from pathlib import Path

import numpy as np

from chinchilla_jax.data import fs
from chinchilla_jax.data.manifest import SPLITS
from chinchilla_jax.data.split import token_dtype
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.rows import leaders, merged, read_texts
from chinchilla_jax.data.stages.splitting import Plan
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.disk import is_remote


@functools.lru_cache(2)
def tokenizer_of(path: str, sha256: str) -> BaseTokenizer:
    """The tokenizer at `path`, loaded once a process; `sha256` tells it from another of the same name."""
    if not is_remote(path):
        return open_tokenizer(path)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, path.rpartition("/")[2])
        local.write_bytes(fs.read(path))
        return open_tokenizer(local)


def run(job: Job, task: dict) -> dict:
    """Write the tokens of a partition, the tokens a document has, and the validation text.

    Groups follow each other by split and then by source; gives documents, tokens and bytes of each group.
    """
    tokenizer = tokenizer_of(task["tokenizer"], task["sha256"])
    arrays, lengths, held_text, groups = [], [], [], {}
    for split, by_source in zip(SPLITS, grouped(job, task["partition"], task["sources"])):
        groups[split] = []
        for documents in by_source:
            first = len(lengths)
            for text in documents:
                arrays.append(tokenizer.document(text.decode()))
                lengths.append(len(arrays[-1]))
            groups[split].append([len(documents), sum(lengths[first:]), sum(map(len, documents))])
            held_text += documents if split == "valid" else []
    tokens = np.concatenate(arrays).astype(token_dtype(tokenizer.size)) if arrays else np.empty(0, np.uint16)
    fs.write(job.path("encode", f"{task['name']}.bin"), tokens.tobytes())
    fs.write(job.path("encode", f"{task['name']}.lengths"), np.array(lengths, "<u8").tobytes())
    fs.write(job.path("encode", f"{task['name']}.txt"), b"".join(held_text))
    return groups


def grouped(job: Job, partition: int, sources: int) -> list[list[list[bytes]]]:
    """The texts of a partition: of the training split and of the held-out one, by source, in order."""
    rows, texts, plan = merged(job, partition), read_texts(job, partition), Plan.load(job)
    found: list[list[list[bytes]]] = [[[] for _ in range(sources)] for _ in SPLITS]
    columns = (rows[name].tolist() for name in ("key", "low", "size", "offset", "segment", "source"))
    for held_out, key, low, size, offset, segment, source in zip(
        plan.held_out(leaders(job, partition)).tolist(), *columns
    ):
        start, block = texts[segment]
        text = block[offset - start : offset - start + size]
        if plan.cut and plan.cut[:2] == (key, low):
            found[0][source].append(text[: plan.cut[2]])
            found[1][source].append(text[plan.cut[2] : plan.cut[3]])
        else:
            found[held_out][source].append(text)
    return found
