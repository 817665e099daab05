"""The stages of `prepare` in order, each mapped over its tasks by an engine."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chinchilla_jax.config import DataConfig, flag, to_dict
from chinchilla_jax.data import fs, tokenizer_train
from chinchilla_jax.data.added_tokens import copy_with_added
from chinchilla_jax.data.documents import Say, Source
from chinchilla_jax.data.engines import Engine
from chinchilla_jax.data.filters import contamination, language, minhash
from chinchilla_jax.data.filters.chain import EXAMPLES, Account, Chain
from chinchilla_jax.data.manifest import SPLITS, VALID_TEXT
from chinchilla_jax.data.progress import progress
from chinchilla_jax.data.split import block_bytes, token_dtype
from chinchilla_jax.data.stages import job as jobs
from chinchilla_jax.data.stages import near, rows, sampling, sharding, splitting
from chinchilla_jax.data.stages.splitting import Plan, Totals
from chinchilla_jax.data.tokenizer_base import BaseTokenizer
from chinchilla_jax.data.tokenizers import open_tokenizer, tokenizer_file
from chinchilla_jax.disk import is_remote
from chinchilla_jax.errors import UserError

# Training reads no more text than this: its memory peaks at 1.0 GB (BPE) and 0.7 GB (unigram) then.
SAMPLE_BYTES = {"bpe": 100 << 20, "unigram": 32 << 20}


@dataclass(frozen=True)
class Corpus:
    """What the sources held: counts of each, totals, the split, and what each stage left out."""

    sources: list[dict]
    totals: Totals
    plan: Plan
    stages: list[dict]


class Pipeline:
    """One `prepare` in the folder `root`, which may hold results of an earlier attempt at the same."""

    def __init__(
        self, root: str, store: str, version: str, config: DataConfig, sources: list[Source], engine: Engine, show: bool
    ):
        self.root, self.store, self.version, self.config = root, store, version, config
        self.sources, self.engine, self.show = sources, engine, show
        self.units = numbered(sources)

    @property
    def named(self) -> str:
        """The sources as the user named them."""
        return f"--data.sources {' '.join(source.name for source in self.sources)}"

    def without_text(self) -> UserError:
        """What is said where a split is left without text."""
        return UserError(
            f"after leaving out empty documents and duplicates one split has no text; add text to {self.named}"
        )

    def start(self) -> None:
        """Write the settings of the job."""
        size = sum(unit["bytes"] for unit in self.units)
        if self.config.languages:
            language.check(self.config.languages)
        if self.config.decontaminate:
            found = contamination.collect(self.config.decontaminate, self.config.decontaminate_words)
            fs.write(fs.join(self.root, "contamination"), found.tobytes())
        jobs.save(
            self.root,
            {"config": to_dict(self.config), "store": self.store, **jobs.shape(size, is_remote(self.root))},
        )
        self.job = jobs.load(self.root, self.version)

    def run(self, stage: str, label: str, tasks: list[dict]) -> list[dict]:
        """The results of a stage over all tasks."""
        with progress(label, sum(task.get("bytes", 0) for task in tasks), self.show) as advance:
            return self.engine.map(self.root, self.version, stage, tasks, lambda task: advance(task.get("bytes", 0)))

    def gather(self, say: Say) -> Corpus:
        """Read all sources, drop duplicates, and split."""
        read = self.run("read", "reading", self.units)
        names = [name for found in read for name in found["segments"]]
        if not names:
            documents = sum(found.get("documents", 0) for found in read)
            filtered = sum(map(left_out, read))
            raise UserError(
                f"{self.named}: no text in {documents:,} documents"
                + (f", of which the filters left out {filtered:,}; loosen them" if filtered else "")
            )
        self.check_used(read, say)
        rows.collect_cuts(self.job, names)
        merged = self.run("merge", "merging", self.partitions())
        settled, clusters = self.near(merged)
        totals = Totals.of(self.job, len(self.sources))
        plan = self.split(totals)
        plan.save(self.job)
        changed = self.config.valid_fraction != DataConfig().valid_fraction
        if changed and not any(totals.free_documents):
            say("WARNING: --data.valid-fraction is not followed: the sources come with a validation split of their own")
        counts = [self.count(number, read, merged, settled, totals) for number in range(len(self.sources))]
        for entry in counts:
            for kind, number in entry["skipped"].items():
                say(f"{entry['name']}: skipped {number:,} {kind}")
        return Corpus(counts, totals, plan, self.account(read, merged, counts, clusters))

    def near(self, merged: list[dict]) -> tuple[list[dict], dict]:
        """Find near-duplicates and settle what becomes of them; gives counts by partition, and of clusters."""
        config = self.config.near
        if config.mode == "off":
            return [], {}
        documents = [found["documents"] for found in merged]
        tasks = near.tasks(documents)
        self.run("near", "comparing", tasks)
        path = self.job.path("clusters.json")
        if not fs.exists(path):
            found = near.clusters(self.job, tasks, minhash.threshold(config.jaccard, config.words))
            fs.write(path, json.dumps(found).encode())
        before = np.concatenate([[0], np.cumsum(documents)]).tolist()
        settle = [{**task, "first": before[task["partition"]]} for task in self.partitions()]
        return self.run("settle", "settling", settle), json.loads(fs.read(path))

    def account(self, read: list[dict], merged: list[dict], counts: list[dict], clusters: dict) -> list[dict]:
        """What each stage left out, for the manifest and the report."""
        chain = Chain(self.config, np.empty(0, np.uint64) if self.config.decontaminate else None)
        total = Account(chain.names)
        for found in read:
            total.merge(found["account"])
        stages = [{**about, **total.values[about["stage"]]} for about in chain.describe()]
        if self.config.deduplicate:
            dropped = sum(c["duplicates"] for c in counts)
            examples = [example for found in merged for example in found["examples"]][:EXAMPLES]
            rules = {"equal": {"documents": dropped, "examples": examples}}
            stages.append({"stage": "duplicates", "version": 1, "dropped": dropped, "rules": rules})
        if clusters:
            settings = {**to_dict(self.config.near), "bands": minhash.BANDS, "rows": minhash.ROWS}
            dropped = sum(c["near_duplicates"] for c in counts) if self.config.near.mode == "drop" else 0
            stages.append(
                {"stage": "near", "version": minhash.VERSION, "settings": settings, **clusters, "dropped": dropped}
            )
        return stages

    def check_used(self, read: list[dict], say: Say) -> None:
        """Say what the sources have to say; a --data.field that none of them looked at is an error."""
        for unit, found in zip(self.units, read):
            source = self.sources[unit["source"]]
            source.said.update(found["said"])
            source.records += found["records"]
        for source in self.sources:
            for text, count in source.said.items():
                say(f"{source.name}: {count:,} {text}")
        if self.config.field != DataConfig().field and not any(source.records for source in self.sources):
            raise UserError(
                f"--data.field {self.config.field}: no source has records (.jsonl, .ndjson, .json, .parquet or "
                "TFDS); leave it out"
            )

    def split(self, totals: Totals) -> Plan:
        """The split, by documents where that is possible."""
        plan = splitting.plan(self.job, totals)
        if totals.held_out or any(key >= 0 for key in plan.keys):
            return plan
        cut = sampling.tail(self.job, plan.limit, plan.limit / splitting.TOO_LARGE)
        if cut is None:
            raise self.without_text()
        return replace(cut, keys=plan.keys)

    def count(self, number: int, read: list[dict], merged: list[dict], settled: list[dict], totals: Totals) -> dict:
        """A source's entry in the manifest: what it is, and what became of its documents."""
        source = self.sources[number]
        mine = [found for unit, found in zip(self.units, read) if unit["source"] == number]
        skipped = source.skipped + sum((Counter(found["skipped"]) for found in mine), Counter())
        return {
            "name": source.name,
            "licence": source.licence,
            "documents": totals.documents[number],
            "bytes": totals.bytes[number],
            "duplicates": sum(found["duplicates"][number] for found in merged),
            "near_duplicates": sum(found["near"][number] for found in settled),
            "filtered": sum(map(left_out, mine)),
            "empty": sum(found.get("empty", 0) for found in mine),
            "skipped": {kind: count for kind, count in skipped.items() if count},
        }

    def partitions(self, **more) -> list[dict]:
        """A task for every range of hashes."""
        task = {"sources": len(self.sources), **more}
        return [{"name": f"{n:04}", "partition": n, **task} for n in range(self.job.partitions)]

    def tokenizer(self, corpus: Corpus, made: Path, say: Say) -> BaseTokenizer:
        """Train the tokenizer on a sample of the training split into the folder `made`, or copy the given one."""
        config = self.config
        if config.tokenizer:
            copy_with_added(config.tokenizer, made)
            given, default = open_tokenizer(made), DataConfig()
            for name in ("vocab_size", "tokenizer_kind", "tokenizer_sentences"):
                if getattr(config, name) not in (getattr(default, name), given.size):
                    say(f"WARNING: {flag('data.' + name)} is not followed: --data.tokenizer is there already")
            if not given.lossless:
                say(
                    f"WARNING: {config.tokenizer} does not give every text back unchanged (its normalisation loses "
                    "some)"
                )
            return given
        if (made / "tokenizer.model").is_file():
            return open_tokenizer(made)
        shares = self.shares(corpus.totals)
        size = sum(share * size for share, size in zip(shares, corpus.totals.bytes))
        say(f"training a {config.tokenizer_kind} tokenizer of {config.vocab_size:,} pieces on {size / 1e6:,.1f} MB")
        held = sampling.sample(self.job, corpus.plan, shares)
        # A block may begin or end inside a character.
        texts = lambda: (text.decode(errors="ignore") for text in held)  # noqa: E731
        pieces = tokenizer_train.train(texts, config, made / "tokenizer.model")
        for line in tokenizer_train.fewer(pieces, config.vocab_size, "data.vocab_size"):
            say(line)
        return open_tokenizer(made)

    def shares(self, totals: Totals) -> list[float]:
        """The share of each source's text that trains the tokenizer: of all alike, or by weight as far as it goes."""
        size = sum(totals.bytes)
        share = min(1.0, SAMPLE_BYTES[self.config.tokenizer_kind] / size)
        share = min(share, self.config.tokenizer_sentences / sum(totals.lines))
        if not self.config.weights:
            return [share] * len(self.sources)
        for source, weight, left in zip(self.sources, self.config.weights, totals.bytes):
            if weight and not left:
                raise UserError(f"--data.weights gives {weight:g} to {source.name}, which has no text left")
        whole = sum(self.config.weights)
        return [
            min(1.0, share * size * weight / whole / max(1, left))
            for weight, left in zip(self.config.weights, totals.bytes)
        ]

    def encode(self, corpus: Corpus, tokenizer: BaseTokenizer, made: Path) -> tuple[dict, dict]:
        """Write streams, indices and the validation text; gives the counts of both splits, and the files' checksums."""
        size = sum(corpus.totals.bytes)
        free = float("inf") if is_remote(self.store) else shutil.disk_usage(self.store).free
        if free < size:
            raise UserError(
                f"{free / 1e6:,.0f} MB are free for about {size / 1e6:,.0f} MB of tokens in {self.config.store}; free "
                "some space or choose another --data.store"
            )
        path = tokenizer_file(made)
        if is_remote(self.root):
            fs.write(self.job.path("tokenizer", path.name), path.read_bytes())
        shared = self.job.path("tokenizer", path.name) if is_remote(self.root) else str(path)
        more = {"tokenizer": shared, "sha256": tokenizer.sha256}
        groups = self.run("encode", "encoding", self.partitions(bytes=size // self.job.partitions, **more))
        self.write_valid_text(str(made / VALID_TEXT), groups)
        counts, shards = {}, []
        for split in SPLITS:
            table = sharding.pieces(groups, split)
            fs.write(self.job.path(f"{split}.pieces"), table.tobytes())
            counts[split] = self.summary(groups, split)
            shards += self.shards(split, counts[split]["tokens"], tokenizer)
        written = self.run("shard", "writing", shards)
        files = {}
        for task, found in zip(shards, written):
            counts[task["split"]]["shards"].append(
                {"tokens": task["last"] - task["first"] + task["end"]}
                | {name: task[name] for name in ("file", "index", "blocks", "block")}
                | {"documents": found["documents"]}
            )
            files |= found["files"]
        return counts, files

    def write_valid_text(self, path: str, groups: list[dict]) -> None:
        """Write the validation text in the order of its stream: source by source."""
        before = [0] * len(groups)
        with fs.writing(path) as file:
            for source in range(len(self.sources)):
                for number, group in enumerate(groups):
                    size = group["valid"][source][2]
                    if size:
                        file.write(fs.read(self.job.path("encode", f"{number:04}.txt"), before[number], size))
                    before[number] += size

    def summary(self, groups: list[dict], split: str) -> dict:
        """Tokens, documents and bytes of a split, in all and by source."""
        of = [[sum(group[split][n][k] for group in groups) for k in range(3)] for n in range(len(self.sources))]
        documents, tokens, size = (sum(column) for column in zip(*of))
        if not documents:
            raise self.without_text()
        return {
            "tokens": tokens + 1,
            "documents": documents,
            "bytes": size,
            "bytes_per_token": round(size / (tokens + 1), 4),
            "sources": [
                {"name": source.name, "documents": d, "tokens": t, "bytes": b}
                for source, (d, t, b) in zip(self.sources, of)
            ],
            "shards": [],
        }

    def shards(self, split: str, tokens: int, tokenizer: BaseTokenizer) -> list[dict]:
        """The tasks that write the stream of a split, whose last token is one more separator."""
        dtype = token_dtype(tokenizer.size)
        most = self.config.shard_mb * (1 << 20) // dtype.itemsize
        count = -(-tokens // most)
        tasks = []
        for number in range(count):
            stem = split if count == 1 else f"{split}-{number:05}-of-{count:05}"
            first, last = number * most, min(tokens, (number + 1) * most)
            end = last == tokens
            tasks.append({
                "name": stem, "split": split, "file": f"{stem}.bin", "index": f"{stem}.idx.npy",
                "blocks": f"{stem}.blocks.npy", "block": block_bytes(tokens * dtype.itemsize),
                "first": first, "last": last - end, "end": end, "dtype": dtype.str, "separator": tokenizer.separator,
                "bytes": (last - first) * dtype.itemsize,
            })  # fmt: skip
        return tasks


def numbered(sources: list[Source]) -> list[dict]:
    """The units of all sources, with names in order and the number of their source."""
    found = [{**unit, "source": number} for number, source in enumerate(sources) for unit in source.units]
    return [{**unit, "name": f"{number:06}"} for number, unit in enumerate(found)]


def left_out(found: dict) -> int:
    """How many documents the filters left out of what a task of stage `read` gave."""
    return sum(entry["in"][0] - entry["out"][0] for entry in found["account"].values())
