"""What pretraining, adversarial training and sparsity are worth downstream, and fine-tuning methods against each other.

    python tools/ablate_tasks.py plan   --out docs/ablation/tasks     # the table of runs and the rule, before any run
    python tools/ablate_tasks.py run    --bases runs/ablate --runs runs/ablate-tasks --data ../shared/data/tasks
    python tools/ablate_tasks.py report --runs runs/ablate-tasks --out docs/ablation/tasks

`run` does what is not there yet and may be stopped at any time; `--only WORD` takes the cells whose name holds it.
Bases are the runs of tools/ablate.py, which have the same tokens. The report follows the rule of the plan, and says
which cells are empty. 192 + 81 runs and 8 evaluations: a day or two on two cores.
"""

import argparse
import csv
import gzip
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ablate_tasks_report as reports

SEEDS = (0, 1, 2)
# Runs of tools/ablate.py without their seed: the pretraining recipes, and the base of the comparison of methods.
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
METHODS = ("full", "head", "top", "lora", "dora", "adalora", "ia3", "houlsby", "prompt")
METHOD_TASKS = ("uci", "sentfin", "csl")
SHIFTS = ("shakespeare", "docstrings")  # beside the text of training


class Task(NamedTuple):
    """Where its files lie below --data, how many records train, and the settings that read them."""

    train: str
    test: str
    records: int
    settings: dict[str, Any]
    labels: int = 0  # of the most frequent labels that are kept; 0 keeps all


TASKS = {
    "banking": Task("intent/banking77/train.csv.gz", "intent/banking77/test.csv.gz", 500,
                    {"task.text": "text", "task.label": "category"}, 20),
    "uci": Task("sentiment/uci_sentences/train.tsv", "sentiment/uci_sentences/test.tsv", 2000, {}),
    "sentfin": Task("sentiment_finance/sentfin/train.jsonl.gz", "sentiment_finance/sentfin/test.jsonl.gz", 6000, {}),
    "csl": Task("classification_zh/csl_category/train.tsv.gz", "classification_zh/csl_category/test.tsv.gz", 8000,
                {"task.text": "1", "task.label": "2"}),
}  # fmt: skip


class Cell(NamedTuple):
    """A run: its folder, its base, its task, and how it is tuned."""

    name: str
    base: str
    task: str
    seed: int
    settings: dict[str, Any]


def cells() -> Iterator[Cell]:
    """Every run of both tables, seed by seed, so that whole rows are there early."""
    for seed, task, tuned, recipe in itertools.product(SEEDS, TASKS, TUNED, PRETRAINED):
        attack = {f"adversarial.{name}": value for name, value in TUNED[tuned].items()}
        name = f"downstream/{task}/{recipe}/{tuned}-s{seed}"
        yield Cell(name, f"{PRETRAINED[recipe]}-s{seed}", task, seed, {"tune.method": "full", **attack})
    for seed, task, method in itertools.product(SEEDS, METHOD_TASKS, METHODS):
        yield Cell(f"methods/{task}/{method}-s{seed}", f"plain-s{seed}", task, seed, {"tune.method": method})


def package(*words: object) -> dict[str, Any]:
    """What a command of the package reports; its failure ends the tool with its exit code."""
    line = [sys.executable, "-m", "chinchilla_jax", *map(str, words), "--json"]
    print("$", *line[1:-1], flush=True)
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


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
                csv.writer(file).writerows([rows[0], *(body[:: max(1, len(body) // most)][:most] if most else body)])
        else:
            lines = text.splitlines(keepends=True)
            target.write_text("".join(lines[: most + 1] if most else lines), encoding="utf-8")
    return targets[0], targets[1]


def rank_of(cell: Cell, base: Path, train: Path, budget: int, scratch: Path) -> dict[str, Any]:
    """The rank or length with which a method trains about `budget` parameters; nothing for one that has no choice."""
    name = {"prompt": "tune.prompt"}.get(cell.settings["tune.method"], "tune.rank")
    if cell.settings["tune.method"] not in (*RANKED, "prompt"):
        return {}

    def trained(size: int) -> int:
        told = {**cell.settings, **TASKS[cell.task].settings, name: size, "task.train": train, "from": base}
        return package("finetune", "--dry-run", "--run-dir", scratch / "none", *flags(told))["trained_parameters"]

    one, two = trained(1), trained(2)
    return {name: max(1, round(1 + (budget - one) / (two - one)))}


def tune(cell: Cell, args: argparse.Namespace) -> None:
    """Tune one cell and score it, unless both are done; a base that is not there leaves it empty."""
    folder, base = args.runs / cell.name, args.bases / cell.base
    if not (base / "config.json").exists():
        print(f"{cell.name}: no base {base}; python tools/ablate.py run --only {cell.base}", flush=True)
        return
    train, test = files(cell.task, args.data, args.runs)
    settings = {**cell.settings, **TASKS[cell.task].settings, "task.train": train, "train.seed": cell.seed}
    if cell.name.startswith("methods/") and not folder.exists():
        told = {"tune.method": "lora", "tune.rank": BUDGET, **TASKS[cell.task].settings, "task.train": train}
        dry = ("finetune", "--dry-run", "--from", base, "--run-dir", args.runs / "none", *flags(told))
        settings |= rank_of(cell, base, train, package(*dry)["trained_parameters"], args.runs)
    if not (folder / "finetune.json").exists():
        cost = package("finetune", "--dry-run", "--from", base, "--run-dir", args.runs / "none", *flags(settings))
        began = time.time()
        package("finetune", "--from", base, "--run-dir", folder, *flags(settings))
        told = {"seconds": time.time() - began, **{k: cost[k] for k in ("trained_parameters", "memory_bytes")}}
        (folder / "cost.json").write_text(json.dumps(told) + "\n")
    if not (folder / "scores.json").exists():
        found = reports.scored(folder, test, TASKS[cell.task].settings)
        (folder / "scores.json").write_text(json.dumps(found, indent=1) + "\n")


def shift(args: argparse.Namespace) -> None:
    """The loss of every pretrained model on other text than it was trained on."""
    for recipe, seed, source in itertools.product(PRETRAINED, SEEDS[:1], SHIFTS):
        base, path = args.bases / f"{PRETRAINED[recipe]}-s{seed}", args.runs / "shift" / f"{recipe}-{source}.json"
        if path.exists() or not (base / "config.json").exists() or args.only not in str(path):
            continue
        store = args.runs / "shift" / f"store-{source}"
        if not (store / "manifest.json").exists():
            package("prepare", "--data.sources", source, "--data.store", store, "--data.tokenizer", base)
        found = package("evaluate", "--run-dir", base, "--data.store", store)
        path.write_text(json.dumps(found, indent=1) + "\n")


def run(args: argparse.Namespace) -> None:
    """Everything that is not there yet."""
    for cell in cells():
        if args.only in cell.name:
            tune(cell, args)
    shift(args)


def plan(args: argparse.Namespace) -> None:
    """The pre-registration: what will be run, and what will be concluded from it."""
    args.out.mkdir(parents=True, exist_ok=True)
    told = {
        "pretrained": PRETRAINED, "tuned": TUNED, "methods": list(METHODS), "seeds": list(SEEDS),
        "tasks": {name: task._asdict() for name, task in TASKS.items()}, "shifts": list(SHIFTS),
        "runs": [cell.name for cell in cells()], "rule": reports.RULE,
    }  # fmt: skip
    (args.out / "plan.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def report(args: argparse.Namespace) -> None:
    """README.md of --out from the cells that are there."""
    (args.out / "README.md").write_text(reports.page(args.runs, list(cells()), sys.modules[__name__]), encoding="utf-8")


def main() -> None:
    """`plan`, `run` or `report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plan", "run", "report"))
    parser.add_argument("--bases", type=Path, default=Path("runs/ablate"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablate-tasks"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/tasks"))
    parser.add_argument("--out", type=Path, default=Path("docs/ablation/tasks"))
    parser.add_argument("--only", default="", help="cells whose name holds this, such as downstream/uci")
    args = parser.parse_args()
    {"plan": plan, "run": run, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
