"""Text that is read over and over: what keeps a model from learning it by heart, and from how many readings on.

    python tools/ablate.py run    --study repeated --size full  --runs runs/repeated    # hours; resumes
    python tools/ablate.py report --study repeated --size full  --runs runs/repeated --out docs/ablation

Registered before the runs: RECIPES, SIZES with their seeds, and RULE. The text is cut into parts of 1/32, 1/32, 1/16,
1/8, 1/4 and 1/2; all runs of a size take equal steps, `passes` times the tokens of the whole, and differ in the unique
text alone: a run of e readings trains on the first parts, which are `passes`/e of the whole.
"""

import hashlib
import json
import math
import statistics
from pathlib import Path
from typing import NamedTuple

import ablate_report

Settings = dict[str, object]
PARTS = (32, 32, 16, 8, 4, 2)  # one over the share of each
RULE = """
Rule, registered with the recipes: a recipe is recommended if its best validation loss, the mean over its seeds, lies at
least 0.10 nats and more than two standard errors of the difference below that of the better of tuned dropout and tuned
weight decay, at 1.02 plain runs of FLOPs or less. `plan` recommends it from the number of readings on at which its mean
gain over plain exceeds two standard errors, and says the gain. Nothing is called better inside two standard errors.
"""


class Size(NamedTuple):
    """Settings of every run of a size, the readings of the main table, seeds, and whether runs are attacked too."""

    settings: Settings
    readings: int
    seeds: tuple[int, ...]
    vocabulary: int
    passes: int = 1  # the fewest readings: a run's tokens over those of the whole text
    attack: bool = True


def model(layers: int, width: int, heads: int, hidden: int) -> Settings:
    """A shape."""
    return {"model.layers": layers, "model.d_model": width, "model.heads": heads, "model.head_dim": width // heads,
            "model.d_ff": hidden, "train.seq_len": 128}  # fmt: skip


SIZES = {
    # 0.22M parameters beside the table, minutes a run on a CPU core
    "pilot": Size(
        model(2, 96, 3, 256) | {"train.batch_size": 16, "optimizer.peak_lr": 4e-3}, 16, (0, 1), 1024, 1, False
    ),
    # 1.05M, an hour a run on a CPU core, 60 runs
    "full": Size(model(2, 208, 4, 560) | {"train.batch_size": 32, "optimizer.peak_lr": 4e-3}, 16, (0, 1, 2), 1024, 8),
    # 25M, two minutes a run on an H100; wants a text of about 160M tokens (`--text`)
    "card": Size(model(8, 512, 8, 1376) | {"train.batch_size": 256, "optimizer.peak_lr": 2e-3}, 16, (0,), 8192),
}
TOKENS = {"corruption.share": 0.15}
DECAY = {"optimizer.weight_decay": 1.0}
SHIFT = {"train.shift_windows": True}
FGM = {"adversarial.method": "fgm", "adversarial.radius": 0.3, "adversarial.fraction": 1.0, "adversarial.start": 0.0}
# In the order in which they are worth having.
RECIPES: dict[str, Settings] = {
    "plain": {},
    "tokens-15": TOKENS,
    "tokens-15+decay-1": TOKENS | DECAY,
    "decay-1": DECAY,
    "dropout-0.1": {"model.dropout": 0.1},
    "tokens-30": {"corruption.share": 0.3},
    "tokens-5": {"corruption.share": 0.05},
    "decay-0.3": {"optimizer.weight_decay": 0.3},
    "decay-3": {"optimizer.weight_decay": 3.0},
    "dropout-0.2": {"model.dropout": 0.2},
    "dropout-0.3": {"model.dropout": 0.3},
    "fgm-0.3": FGM,
    "tokens-15+fgm-0.3": TOKENS | FGM,
    "unigram-15": TOKENS | {"corruption.kind": "unigram"},
    "mask-15": TOKENS | {"corruption.kind": "mask"},
    "hotflip-15": TOKENS | {"corruption.kind": "gradient"},
    "noise-1": {"adversarial.method": "noise"},
    "magnitude-75": {"sparsity.method": "magnitude", "sparsity.target": 0.75},
    # Added after the first ten pilot runs, hence exploratory: clean text in the last quarter of the run.
    "tokens-15-stop": TOKENS | {"corruption.stop": 0.75},
    # Added after fifteen, exploratory too.
    "tokens-5+decay-1": {"corruption.share": 0.05} | DECAY,
    "tokens-15+decay-1-stop": TOKENS | DECAY | {"corruption.stop": 0.75},
    # Exploratory, written down before they ran. A mask piece says itself which input is false, so that true tokens need
    # not be distrusted; and what has helped alone, together: a few false tokens, decay, dropout, clean at the end.
    "mask-15+decay-1": TOKENS | DECAY | {"corruption.kind": "mask"},
    "tokens-5+decay-1+dropout-0.1-stop": DECAY
    | {"corruption.share": 0.05, "corruption.stop": 0.75, "model.dropout": 0.1},
    # Written down before they ran, on another cut of the text: windows at other places in every epoch.
    "shift": SHIFT,
    "shift+decay-0.3": SHIFT | {"optimizer.weight_decay": 0.3},
    "shift+decay-1": SHIFT | DECAY,
    "shift+tokens-5+decay-0.3": SHIFT | {"corruption.share": 0.05, "optimizer.weight_decay": 0.3},
    "shift+tokens-5+decay-1": SHIFT | {"corruption.share": 0.05} | DECAY,
    "longer": {"train.steps": 1.9},  # times the steps: what fgm's FLOPs buy a plain run
}
# Readings at which these are compared beside the main table (tokens-5+decay-1 since it was found: exploratory).
CURVE = (1, 2, 4, 8, 32)
COMPARED = ("plain", "tokens-15", "tokens-5+decay-1", "shift", "shift+decay-1", "shift+tokens-5+decay-1")


class Run(NamedTuple):
    """One folder of `--runs`."""

    name: str
    recipe: str
    readings: int
    settings: Settings
    seed: int


def runs_of(size: Size) -> list[Run]:
    """All runs of a size: first seeds first, the main comparison before the curve, and that before the other seeds."""
    found = []
    for seed in size.seeds:
        cells = [(recipe, size.readings) for recipe in RECIPES]
        curve = [(recipe, readings) for readings in CURVE if readings >= size.passes for recipe in COMPARED]
        for recipe, readings in (*cells[:3], *curve, *cells[3:]):
            name = f"{recipe}-x{readings}-s{seed}"
            found.append(Run(name, recipe, readings, RECIPES[recipe], seed))
    return found


def parts(store: Path, folder: Path, length: int = 4000) -> list[str]:
    """The text of a token store as JSON lines of about `length` characters in random order, cut into PARTS."""
    from chinchilla_jax.data.store import TokenStore

    opened = TokenStore.open(store)
    ends = [*map(int, opened.train.starts[1:]), len(opened.train.tokens) - 1]
    chunks = []
    for start, end in zip(map(int, opened.train.starts), ends):
        lines, held = opened.tokenizer.decode(opened.train.tokens[start + 1 : end]).splitlines(keepends=True), ""
        for line in lines:
            held += line
            if len(held) >= length:
                chunks, held = [*chunks, held], ""
        chunks += [held] if held else []
    chunks.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    folder.mkdir(parents=True, exist_ok=True)
    names, first = [], 0
    for number, share in enumerate(PARTS):
        last = first + len(chunks) // share if number < len(PARTS) - 1 else len(chunks)
        names.append(str(folder / f"part{number}.jsonl"))
        Path(names[-1]).write_text("".join(json.dumps({"text": text}) + "\n" for text in chunks[first:last]))
        first = last
    return names


def weights(sizes: list[int], cut: float) -> str:
    """--data.weights of a run that reads the first 1/cut of the text, every token as likely."""
    kept = len(PARTS) - round(math.log2(cut))
    return " ".join(str(size if number < kept else 0) for number, size in enumerate(sizes))


def run(args, command, flags) -> None:
    """Prepare the text unless it is there, and train what is not."""
    size, store = SIZES[args.size], args.runs / "store"
    if not (store / "manifest.json").exists():
        text = Path(args.text)
        if not (text / "manifest.json").exists():
            command("prepare", "--config", "quickstart", "--data.store", text)
        names = parts(text, args.runs / "text")
        command("prepare", "--data.sources", *names, "--data.store", store, "--data.vocab-size", size.vocabulary,
                "--data.valid-fraction", 0.05)  # fmt: skip
    sources = json.loads((store / "manifest.json").read_text())["splits"]["train"]["sources"]
    sizes = [source["tokens"] for source in sources]
    step = size.settings["train.batch_size"] * size.settings["train.seq_len"]
    steps = size.passes * sum(sizes) // step
    for each in runs_of(size):
        folder = args.runs / each.name
        if args.only and each.name not in args.only.split(","):
            continue
        longer = each.settings.get("train.steps", 1)
        own = {"train.steps": int(steps * longer), "train.seed": each.seed, "train.eval_every": steps // 16,
               "train.eval_batches": 20, "train.log_every": 50, "train.sample_tokens": 1, "checkpoint.every": steps,
               "optimizer.warmup_steps": 50}  # fmt: skip
        if not (folder / "done").exists():
            given = flags({**size.settings, **each.settings, **own})
            command("pretrain", "--data.store", store, "--run-dir", folder, *given,
                    "--data.weights", *weights(sizes, each.readings / size.passes).split())  # fmt: skip
            (folder / "done").write_text("")
        if size.attack and not (folder / "attack.json").exists():
            command("evaluate", "--run-dir", folder, "--attack", "--attack-tokens", 1_000_000)


def row(runs: Path, each: Run) -> dict | None:
    """Best and last validation loss of a finished run, and the step of the best."""
    if not (runs / each.name / "done").exists():
        return None
    lines = [json.loads(line) for line in (runs / each.name / "metrics.jsonl").read_text().splitlines()]
    seen = {line["step"]: line["valid_loss"] for line in lines if line.get("valid_loss") is not None}
    best = min(seen, key=seen.get)
    attack = runs / each.name / "attack.json"
    more = json.loads(attack.read_text()) if attack.exists() else {}
    calibrated = more["rows"]["temperature"]["clean"]["loss"][0] if more else None
    return {"run": each.name, "recipe": each.recipe, "readings": each.readings, "seed": each.seed,
            "settings": each.settings, "best": seen[best], "best_at": best / max(seen), "last": seen[max(seen)],
            "curve": seen, "word": more.get("word", {}).get("0.05"), "calibrated": calibrated}  # fmt: skip


def differences(rows: list[dict], recipe: str, other: str, readings: int, figure: str = "best") -> list[float]:
    """`figure` of a recipe less that of another, seed by seed."""
    found = {(r["recipe"], r["seed"]): r[figure] for r in rows if r["readings"] == readings}
    seeds = sorted({seed for name, seed in found if name == recipe} & {seed for name, seed in found if name == other})
    return [found[recipe, seed] - found[other, seed] for seed in seeds]


def shown(values: list[float]) -> str:
    """Mean and standard error; one seed has none."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.3f}"
    return f"{mean:+.3f} ± {statistics.stdev(values) / math.sqrt(len(values)):.3f}"


def report(args) -> None:
    """repeated-SIZE.json and repeated-SIZE.md in `--out`; cells that nobody has run say so."""
    size = SIZES[args.size]
    wanted = runs_of(size)
    fresh = [found for each in wanted if (found := row(args.runs, each))]
    earlier = args.out / f"repeated-{args.size}.json"
    rows = fresh + ablate_report.kept(earlier, wanted, fresh)
    missing = [each.name for each in wanted if each.name not in {r["run"] for r in rows}]
    lines = [f"# Repeated text, size {args.size}", RULE]
    lines += ["Validation loss, nats a token; differences to plain of the same seed ± standard error over seeds.", ""]
    lines += [
        f"| recipe, {size.readings} readings | seeds | best | over plain | last | over plain |",
        "| --- " * 6 + "|",
    ]
    for recipe in RECIPES:
        mine = [r for r in rows if r["recipe"] == recipe and r["readings"] == size.readings]
        if not mine:
            lines.append(f"| {recipe} | 0 | not run | | | |")
            continue
        best, last = (statistics.fmean(r[name] for r in mine) for name in ("best", "last"))
        over = [shown(differences(rows, recipe, "plain", size.readings, name)) for name in ("best", "last")]
        lines.append(f"| {recipe} | {len(mine)} | {best:.3f} | {over[0]} | {last:.3f} | {over[1]} |")
    heads = [f"{name} over plain, {figure}" for name in COMPARED[1:] for figure in ("best", "last")]
    lines += ["", f"| readings | plain, best | {' | '.join(heads)} |", "| --- " * (2 + len(heads)) + "|"]
    for readings in sorted({each.readings for each in wanted}):
        plain = [r["best"] for r in rows if r["recipe"] == "plain" and r["readings"] == readings]
        over = [shown(differences(rows, name, "plain", readings, f)) for name in COMPARED[1:] for f in ("best", "last")]
        mean = f"{statistics.fmean(plain):.3f}" if plain else "not run"
        lines.append(f"| {readings} | {mean} | {' | '.join(cell or 'not run' for cell in over)} |")
    lines += ["", f"Not run: {', '.join(missing) or 'nothing'}.", ""]
    args.out.mkdir(parents=True, exist_ok=True)
    earlier.write_text(json.dumps({"rows": rows, "missing": missing}, indent=1) + "\n")
    (args.out / f"repeated-{args.size}.md").write_text("\n".join(lines))
    print("\n".join(lines))
