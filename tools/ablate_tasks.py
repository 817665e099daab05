"""What pretraining, adversarial training and sparsity are worth downstream, and fine-tuning methods against each other.

    python tools/ablate_tasks.py plan   --out docs/ablation/tasks     # the table of runs and the rule, before any run
    python tools/ablate_tasks.py run    --runs runs/ablate-tasks --data ../shared/data/tasks --workers 2
    python tools/ablate_tasks.py report --runs runs/ablate-tasks --out docs/ablation/tasks

`run` does what is not there yet and may be stopped at any time; `--only WORD` takes the runs whose name holds it.
Bases are recipes of tools/ablate.py at the size of BASE, all with the same tokens. The report follows the rule of the
plan, and says which cells are empty. 12 bases, 192 + 81 tuned runs and 8 evaluations: some hours on two cores.
"""

import argparse
import contextlib
import csv
import functools
import gzip
import io
import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ablate
import ablate_tasks_report as reports

SEEDS = (0, 1, 2)
# What is set over configs/ablation.py: 0.4M parameters beside the table, 2.5M tokens, which two cores train in minutes.
BASE = {"model.d_model": 128, "model.head_dim": 32, "model.d_ff": 344, "train.steps": 600, "checkpoint.every": 600}
# Recipes of tools/ablate.py: how the bases are pretrained.
PRETRAINED = {
    "plain": "plain",
    "adversarial": "delayed-0.2",
    "sparse": "magnitude-75",
    "both": "delayed-0.2+magnitude-75",
}
ATTACK = {"radius": 0.1, "fraction": 1.0}
TUNED = {
    "plain": {},
    "freelb": {"method": "freelb", "steps": 2, **ATTACK},
    "r3f": {"method": "r3f", **ATTACK},
    "smart": {"method": "smart", **ATTACK},
}
BUDGET = 8  # rank of LoRA, whose trained parameters the other methods match where they can
RANKED = ("lora", "dora", "adalora", "houlsby")
# Peak rates, for bases of this size: the best of two or three by validation on uci, of the plain base of seed 0.
METHODS = {"full": 1e-3, "head": 5e-3, "top": 1e-3, "lora": 4e-3, "dora": 4e-3, "adalora": 4e-3, "ia3": 4e-2,
           "houlsby": 4e-3, "prompt": 5e-3}  # fmt: skip
METHOD_TASKS = ("uci", "sentfin", "airline")
SHIFTS = ("shakespeare", "docstrings")  # beside the text of training


class Task(NamedTuple):
    """Where its files lie below --data, how many records train, and the settings that read them."""

    train: str
    test: str
    records: int
    settings: dict[str, Any]
    labels: int = 0  # of the first labels that are kept; 0 keeps all
    evenly: bool = False  # whether records are taken from all of the file, which is sorted, or the first ones


TASKS = {
    "banking": Task("intent/banking77/train.csv.gz", "intent/banking77/test.csv.gz", 500,
                    {"task.text": "text", "task.label": "category", "task.epochs": 12}, 20, evenly=True),
    "uci": Task("sentiment/uci_sentences/train.tsv", "sentiment/uci_sentences/test.tsv", 2000, {"task.epochs": 4}),
    "sentfin": Task("sentiment_finance/sentfin/train.jsonl.gz", "sentiment_finance/sentfin/test.jsonl.gz", 2000,
                    {"task.epochs": 4}, evenly=True),
    "airline": Task("customer_service/multidogo_airline/train.tsv.gz",
                    "customer_service/multidogo_airline/test.tsv.gz", 4000,
                    {"task.kind": "labels", "task.text": "utterance", "task.label": "intent", "task.epochs": 4}),
}  # fmt: skip


class Cell(NamedTuple):
    """A run: its folder, its base, its task, and how it is tuned."""

    name: str
    base: str
    task: str
    seed: int
    settings: dict[str, Any]


def cells() -> Iterator[Cell]:
    """Every run of both tables; first what the rule reads, then the methods, then the rest of the first table."""

    def downstream(task: str, recipe: str, tuned: str, seed: int) -> Cell:
        attack = {f"adversarial.{name}": value for name, value in TUNED[tuned].items()}
        name = f"downstream/{task}/{recipe}/{tuned}-s{seed}"
        return Cell(name, f"{PRETRAINED[recipe]}-s{seed}", task, seed, settings("full") | attack)

    def settings(method: str) -> dict[str, Any]:
        return {"tune.method": method, "optimizer.peak_lr": METHODS[method]}

    grid = list(itertools.product(SEEDS, TASKS, TUNED, PRETRAINED))
    ruled = [place for place in grid if "plain" in place[2:]]
    yield from (downstream(task, recipe, tuned, seed) for seed, task, tuned, recipe in ruled)
    for seed, task, method in itertools.product(SEEDS, METHOD_TASKS, METHODS):
        yield Cell(f"methods/{task}/{method}-s{seed}", f"plain-s{seed}", task, seed, settings(method))
    rest = [place for place in grid if place not in ruled]
    yield from (downstream(task, recipe, tuned, seed) for seed, task, tuned, recipe in rest)


def package(*words: object) -> dict[str, Any]:
    """What a command of the package reports, run in this process."""
    from chinchilla_jax.__main__ import main

    print("$", *words, flush=True)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main([*map(str, words), "--json"])
    if code:
        raise RuntimeError(f"{' '.join(map(str, words))} ended with {code}")
    return json.loads(said.getvalue())


def taken(rows: list, most: int, evenly: bool) -> list:
    """`most` rows, or all for 0."""
    return [rows[n * len(rows) // most] for n in range(most)] if most and evenly else rows[: most or None]


def files(task: str, data: Path, folder: Path) -> tuple[Path, Path]:
    """The files of a task with as many records, and only the labels, that it is to have; made once."""
    found, made = TASKS[task], folder / "data" / task
    targets = [made / f"{split}{''.join(Path(path).suffixes).removesuffix('.gz')}" for split, path in
               (("train", found.train), ("test", found.test))]  # fmt: skip
    if all(target.exists() for target in targets):
        return targets[0], targets[1]
    made.mkdir(parents=True, exist_ok=True)
    kept: set[str] = set()
    for path, target, most in ((found.train, targets[0], found.records), (found.test, targets[1], 0)):
        raw = (data / path).read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
        if found.labels:
            rows = list(csv.reader(text.splitlines(keepends=True)))
            kept = kept or set(sorted({row[1] for row in rows[1:]})[: found.labels])
            body = [row for row in rows[1:] if row[1] in kept]
            with open(target, "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([rows[0], *taken(body, most, found.evenly)])
        else:
            lines, head = text.splitlines(keepends=True), target.suffix == ".tsv"
            target.write_text("".join([*lines[:head], *taken(lines[head:], most, found.evenly)]), encoding="utf-8")
    return targets[0], targets[1]


def dry(settings: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """What a run would cost."""
    return package("finetune", "--dry-run", "--run-dir", scratch / "none", *ablate.flags(settings))


def ranked(settings: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Settings with the rank that trains about as many parameters as LoRA of BUDGET, where the method has one.

    As many would be a prompt of 300 tokens, which no row has room for.
    """
    if settings["tune.method"] not in RANKED:
        return settings

    def trained(**changes: object) -> int:
        return dry({**settings, **changes}, scratch)["trained_parameters"]

    budget = trained(**{"tune.method": "lora", "tune.rank": BUDGET})
    # Of even ranks: AdaLoRA starts at 1.5 times its rank, rounded up.
    two, four = trained(**{"tune.rank": 2}), trained(**{"tune.rank": 4})
    return {**settings, "tune.rank": max(1, round(2 + 2 * (budget - two) / (four - two)))}


def attempt(cell: Cell, args: argparse.Namespace) -> str:
    """Tune and score a cell; why it failed, for a failed cell leaves the others to be run."""
    try:
        tune(cell, args)
    except (RuntimeError, ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def tune(cell: Cell, args: argparse.Namespace) -> None:
    """Tune one cell and score it, unless both are done."""
    folder, base = args.runs / cell.name, args.runs / "bases" / cell.base
    train, test = files(cell.task, args.data, args.runs)
    settings = {
        **cell.settings, **TASKS[cell.task].settings, "from": base, "task.train": train, "train.seed": cell.seed
    }  # fmt: skip
    if cell.name.startswith("methods/"):
        begun = reports.read(folder / "config.json")
        settings = {**settings, "tune.rank": begun["tune"]["rank"]} if begun else ranked(settings, args.runs)
    if not (folder / "finetune.json").exists():
        cost = dry(settings, args.runs)
        began = time.time()
        package("finetune", "--run-dir", folder, *ablate.flags(settings))
        told = {"seconds": time.time() - began, **{k: cost[k] for k in ("trained_parameters", "memory_bytes")}}
        (folder / "cost.json").write_text(json.dumps(told) + "\n")
    if not (folder / "scores.json").exists():
        found = reports.scored(folder, test, TASKS[cell.task].settings)
        (folder / "scores.json").write_text(json.dumps(found, indent=1) + "\n")


def pretrain(name: str, args: argparse.Namespace) -> None:
    """Train a base, unless it is done."""
    folder = args.runs / "bases" / name
    if (folder / "done").exists():
        return
    recipe, seed = name.rsplit("-s", 1)
    settings = next(each.settings for each in ablate.RECIPES if each.name == recipe)
    told = ablate.flags({**BASE, **settings, "train.seed": seed})
    package("pretrain", "--config", "ablation", "--run-dir", folder, *told)
    (folder / "done").touch()


def shift(args: argparse.Namespace) -> None:
    """The loss of every pretrained model on other text than it was trained on."""
    for recipe, seed, source in itertools.product(PRETRAINED, SEEDS[:1], SHIFTS):
        base, path = args.runs / "bases" / f"{PRETRAINED[recipe]}-s{seed}", args.runs / f"shift/{recipe}-{source}.json"
        if path.exists() or args.only not in str(path):
            continue
        store = args.runs / "shift" / f"store-{source}"
        if not (store / "manifest.json").exists():
            package("prepare", "--data.sources", source, "--data.store", store, "--data.tokenizer", base)
        found = package("evaluate", "--run-dir", base, "--data.store", store)
        path.write_text(json.dumps(found, indent=1) + "\n")


def run(args: argparse.Namespace) -> None:
    """Everything that is not there yet, each run in a process of its own that has imported JAX before it starts.

    Cells that fail are named at the end, with exit code 1.
    """
    package("prepare", "--config", "ablation")
    for task in TASKS:
        files(task, args.data, args.runs)
    tuned = [cell for cell in cells() if args.only in cell.name]
    bases = dict.fromkeys(cell.base for cell in tuned)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["chinchilla_jax.commands.finetune", "chinchilla_jax.commands.pretrain"])
    with context.Pool(args.workers, maxtasksperchild=1) as pool:
        pool.map(functools.partial(pretrain, args=args), bases, chunksize=1)
        failed = []
        for cell, error in zip(tuned, pool.imap(functools.partial(attempt, args=args), tuned)):
            print(f"{cell.name}: {error or 'done'}", flush=True)
            failed += [cell.name] if error else []
    shift(args)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def plan(args: argparse.Namespace) -> None:
    """The pre-registration: what will be run, and what will be concluded from it."""
    args.out.mkdir(parents=True, exist_ok=True)
    told = {
        "base": BASE, "pretrained": PRETRAINED, "tuned": TUNED, "methods": METHODS, "seeds": list(SEEDS),
        "tasks": {name: task._asdict() for name, task in TASKS.items()}, "shifts": list(SHIFTS),
        "runs": [cell.name for cell in cells()], "rule": reports.RULE,
    }  # fmt: skip
    (args.out / "plan.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def report(args: argparse.Namespace) -> None:
    """figures.json and README.md of --out: what was there, and the runs that are."""
    table = list(cells())
    shifts = [f"shift/{recipe}-{source}" for recipe, source in itertools.product(PRETRAINED, SHIFTS)]
    found = reports.figures(args.runs, [cell.name for cell in table], shifts, args.out / "figures.json")
    (args.out / "README.md").write_text(reports.page(found, table, sys.modules[__name__]), encoding="utf-8")


def main() -> None:
    """`plan`, `run` or `report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plan", "run", "report"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablate-tasks"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/tasks"))
    parser.add_argument("--out", type=Path, default=Path("docs/ablation/tasks"))
    parser.add_argument("--only", default="", help="cells whose name holds this, such as downstream/uci")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    {"plan": plan, "run": run, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
