"""Encoding of `prepare` beside SentencePiece's own batch encoding, in turns, on the same cores and text.

    python tools/bench_encode.py [--mb 64] [--turns 3] [--tokenizer FILE] [FILE ...]

Without files the text is the standard library's source code. One JSON line on standard output: megabytes a second by
the clock and per second of processor time, medians over the turns, and the ratios (ours over SentencePiece's).
"""

import argparse
import json
import resource
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sentencepiece

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import encode, tokenizer_train
from chinchilla_jax.data.sources import Document
from chinchilla_jax.data.spool import Spool

PIECES = 8192


def texts(files: list[str], size: int) -> list[str]:
    """Documents of `size` bytes in all, the files over again if there are not enough."""
    paths = [Path(f) for f in files] or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    once = [path.read_text() for path in paths]
    total = sum(len(text.encode()) for text in once)
    return once * max(1, round(size / total))


def cpu_seconds() -> float:
    """Processor time of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


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
    documents, cores = texts(args.files, int(args.mb * 1e6)), encode.cores()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(args.tokenizer or Path(folder, "model"))
        if not args.tokenizer:
            tokenizer_train.train(lambda: documents[:100], DataConfig(vocab_size=PIECES), model)
        spool = Spool(Path(folder, "spool"))
        size = sum(spool.add(Document(text, "", ""), 0) for text in documents)
        spool.close()
        theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))

        def run_ours() -> int:
            with encode.encoder(spool.path, model, cores, size) as run:
                return sum(len(tokens) for tokens, _ in run(spool.extents)) - len(documents)

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
