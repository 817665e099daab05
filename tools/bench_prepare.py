"""`prepare` stage by stage: megabytes a second of a core for each filter, and time and memory of the whole by size.

    python tools/bench_prepare.py stages [--mb 16] [--turns 3] [FILE ...]
    python tools/bench_prepare.py scale [--documents 100000 400000] [--bytes 200] [--workers 2] [--near drop]

`stages` puts each filter beside datatrove's or datasketch's of the same kind where those are installed. `scale` runs
the command on made-up documents; a time is processor time of all processes, memory the peak of their sum. One JSON line
on standard output.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROOT = Path(__file__).resolve().parent.parent
BATCH = 1 << 18
PIECE = 3000  # characters of a document


def documents(files: list[str], size: int) -> list[str]:
    """Documents of about `PIECE` characters, `size` bytes in all, the files over again if there are not enough."""
    paths = [Path(f) for f in files] or sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    found = [text[i : i + PIECE] for text in (path.read_text() for path in paths) for i in range(0, len(text), PIECE)]
    total = sum(len(text.encode()) for text in found)
    random.Random(0).shuffle(found)
    return (found * max(1, -(-size // total)))[: max(1, round(len(found) * size / total))]


def speed(work: Callable[[], object], size: int, turns: int) -> float:
    """Median megabytes a second of processor time."""
    found = []
    for _ in range(turns):
        begun = time.process_time()
        work()
        found.append(size / 1e6 / (time.process_time() - begun))
    return round(statistics.median(found), 1)


def stages(texts: list[str], turns: int) -> dict:
    """Speed of each filter of ours, and of others' where they are installed."""
    from chinchilla_jax.config import DataConfig
    from chinchilla_jax.config.corpus import QualityConfig, RepetitionConfig
    from chinchilla_jax.data.filters import cleaning, contamination, minhash
    from chinchilla_jax.data.filters.chain import gopher

    size = sum(len(text.encode()) for text in texts)
    batches = [texts[i : i + BATCH // PIECE] for i in range(0, len(texts), BATCH // PIECE)]
    both = DataConfig(quality=QualityConfig(on=True), repetition=RepetitionConfig(on=True))
    one = DataConfig(quality=QualityConfig(on=True))
    finder = contamination.Contamination(contamination.folded_words(texts[:10]).grams(13)[1], 13)

    def clean() -> None:
        for text in texts:
            for step in cleaning.STEPS.values():
                text = step(text)

    def signed(batch: list[str]) -> None:
        found, there = minhash.signatures(batch, 3)
        minhash.bands(found, there)
        minhash.sketch(found)

    def over(work: Callable[[list[str]], object]) -> Callable[[], object]:
        work(batches[0])  # tables are made
        return lambda: [work(batch) for batch in batches]

    found = {
        "clean": speed(clean, size, turns),
        "quality": speed(over(lambda batch: list(gopher(batch, one))), size, turns),
        "quality_and_repetition": speed(over(lambda batch: list(gopher(batch, both))), size, turns),
        "decontaminate": speed(over(finder.hits), size, turns),
        "minhash": speed(over(signed), size, turns),
    }
    found["clean_and_filters"] = round(1 / (1 / found["clean"] + 1 / found["quality_and_repetition"]), 1)
    return {"mb": round(size / 1e6, 1), "ours": found, "others": others(texts, size)}


def others(texts: list[str], size: int) -> dict:
    """The same kinds of filters from datatrove and datasketch, on a part of the text."""
    found, part = {}, texts[: max(1, len(texts) // 20)]
    size = sum(len(text.encode()) for text in part)
    try:
        from datatrove.data import Document
        from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

        made = [Document(text=text, id=str(n)) for n, text in enumerate(part)]
        for name, kind in (
            ("datatrove_quality", GopherQualityFilter),
            ("datatrove_repetition", GopherRepetitionFilter),
        ):
            step = kind()
            step.filter(made[0])  # its word splitter is loaded
            found[name] = speed(lambda step=step: [step.filter(document) for document in made], size, 1)
    except ImportError as error:
        found["datatrove"] = f"not installed ({error})"
    try:
        from datasketch import MinHash

        def sign() -> None:
            for text in part:
                words, signature = text.split(), MinHash(num_perm=128)
                signature.update_batch([" ".join(words[i : i + 3]).encode() for i in range(len(words) - 2)])

        found["datasketch_minhash"] = speed(sign, size, 1)
    except ImportError as error:
        found["datasketch"] = f"not installed ({error})"
    return found


def write(path: Path, count: int, size: int) -> None:
    """Documents of `size` bytes of words of a fixed list, hardly any two alike."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlucmfw", k=draw.randint(2, 9))) for _ in range(20_000)]
    blocks = [" ".join(draw.choices(words, k=12)) for _ in range(5000)]
    with open(path, "w") as file:
        for _ in range(count):
            text = " ".join(draw.choices(blocks, k=size // 60 + 1))[:size]
            file.write(json.dumps({"text": text}) + "\n")


def scale(counts: list[int], size: int, workers: int, near: str) -> list[dict]:
    """Processor microseconds a document and peak memory of `prepare` at each number of documents."""
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder / "text.jsonl", count, size)
            words = ["--data.sources", str(folder / "text.jsonl"), "--data.store", str(folder / "store")]
            words += ["--data.workers", str(workers), "--data.near.mode", near]
            begun, before = time.monotonic(), os.times()
            process = subprocess.Popen(
                [sys.executable, "-m", "chinchilla_jax", "prepare", *words], cwd=ROOT, stdout=subprocess.DEVNULL
            )
            peak = watch(process)
            used = os.times()
            cpu = used.children_user + used.children_system - before.children_user - before.children_system
            found.append({
                "documents": count, "seconds": round(time.monotonic() - begun, 1), "cpu_seconds": round(cpu, 1),
                "cpu_us_a_document": round(1e6 * cpu / count, 1), "peak_mb": round(peak / 1e6),
                "code": process.returncode,
            })  # fmt: skip
            print(found[-1], file=sys.stderr)
    return found


def watch(process: subprocess.Popen) -> int:
    """The greatest sum of resident bytes over a process and its children until it ends (Linux)."""
    peak, page = 0, os.sysconf("SC_PAGE_SIZE")
    while process.poll() is None:
        total = 0
        for pid in family(process.pid):
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            except OSError:
                continue
        peak = max(peak, total)
        time.sleep(0.1)
    return peak


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in family(int(child)))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stages", "scale"))
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--mb", type=float, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 400_000])
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--near", default="off")
    args = parser.parse_args()
    if args.what == "stages":
        report = stages(documents(args.files, int(args.mb * 1e6)), args.turns)
    else:
        report = {"scale": scale(args.documents, args.bytes, args.workers, args.near)}
    print(json.dumps({"name": f"prepare {args.what}", **report}))


if __name__ == "__main__":
    main()
