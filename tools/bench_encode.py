"""Encoding of `prepare` beside SentencePiece's own batch encoding, in turns, on the same cores and text.

    python tools/bench_encode.py [--mb 64] [--turns 3] [--tokenizer FILE] [FILE ...]

Without files the text is the standard library's source code. One JSON line on standard output: megabytes a second by
the clock and per second of processor time, medians over the turns, and the ratios (ours over SentencePiece's).
"""

import argparse
import json
import os
import resource
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import sentencepiece

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import engines, fs, tokenizer_train
from chinchilla_jax.data.pipeline import Pipeline
from chinchilla_jax.data.sources import open_sources
from chinchilla_jax.data.tokenizers import copy_tokenizer, open_tokenizer

PIECES = 8192


def texts(files: list[str], size: int) -> list[str]:
    """Documents of `size` bytes in all, the files over again if there are not enough."""
    paths = [Path(f) for f in files] or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    once = [path.read_text() for path in paths]
    total = sum(len(text.encode()) for text in once)
    return once * max(1, round(size / total))


def cpu_seconds() -> float:
    """Processor time of this process and its children, living and ended (Linux)."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    alive = [Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split() for child in active_children()]
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in alive)
    return sum(u.ru_utime + u.ru_stime for u in used) + ticks / os.sysconf("SC_CLK_TCK")


def timed(work: Callable[[], int], size: int) -> dict[str, float]:
    """Megabytes a second by the clock and per second of processor time."""
    clock, cpu = time.perf_counter(), cpu_seconds()
    tokens = work()
    return {
        "wall": size / 1e6 / (time.perf_counter() - clock),
        "cpu": size / 1e6 / (cpu_seconds() - cpu),
        "tokens": tokens,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tokenizer")
    args = parser.parse_args()
    documents, cores = texts(args.files, int(args.mb * 1e6)), engines.cores()
    size = sum(len(text.encode()) for text in documents)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(args.tokenizer or folder / "model")
        if not args.tokenizer:
            tokenizer_train.train(lambda: documents[:100], DataConfig(vocab_size=PIECES), model)
        (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        (folder / "store").mkdir()
        copy_tokenizer(model, folder / "store")
        theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
        config = DataConfig(sources=(str(folder / "text.jsonl"),), store="-", deduplicate=False)
        with engines.engine("local", "", cores, size) as engine:
            pipeline = Pipeline(name, str(folder / "store"), "1", config, open_sources(config), engine, show=False)
            pipeline.start()
            corpus = pipeline.gather(lambda line: None)
            pipeline.run("merge", "", pipeline.partitions(sources=1))  # the workers have started

            def run_ours() -> int:
                for stage in ("encode", "shard"):
                    fs.remove(str(folder / stage))
                counts, _ = pipeline.encode(corpus, open_tokenizer(model), folder / "store")
                return sum(split["tokens"] - 1 for split in counts.values()) - len(documents)

            def run_theirs() -> int:
                return sum(map(len, theirs.encode(documents, num_threads=cores)))

            turns = [(timed(run_ours, size), timed(run_theirs, size)) for _ in range(args.turns)]
    report = {"name": "encode", "cores": cores, "mb": round(size / 1e6, 1)}
    for who, number in (("ours", 0), ("sentencepiece", 1)):
        report[who] = {key: round(statistics.median(turn[number][key] for turn in turns), 2) for key in turns[0][0]}
    for key in ("wall", "cpu"):
        report[f"ratio_{key}"] = round(statistics.median(ours[key] / theirs[key] for ours, theirs in turns), 3)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
