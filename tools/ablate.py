"""What the adversarial objectives and the sparsity constraints give and cost, on the same text with the same tokens.

    python tools/ablate.py run    --runs runs/ablate            # trains and attacks what is not there yet; resumes
    python tools/ablate.py run    --runs runs/ablate --only plain-s0,delayed-0.2-s0
    python tools/ablate.py report --runs runs/ablate --out docs/ablation

Each line of RECIPES is one set of overrides of configs/ablation.py. Equal steps are equal compute but for the recipes
that cost more than plain; those the report also holds against plain runs of more steps (`plain-1.35`, `plain-1.7`). An
attack that begins late goes on from plain's checkpoint of the same seed, since until then the two runs are one. The
report reads what is there, keeps what an earlier report in `--out` has of runs that are gone, and says which runs are
missing.
"""

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ablate_repeated
import ablate_report

CONFIG = "configs/ablation.py"
Settings = dict[str, object]


class Recipe(NamedTuple):
    """A name, its settings, and the seeds it is trained with: three for what a claim rests on, one for the grid."""

    name: str
    settings: Settings = {}
    seeds: tuple[int, ...] = (0,)


class Run(NamedTuple):
    """One folder of `--runs`."""

    name: str
    recipe: str
    settings: Settings
    seed: int


def adversarial(method: str, radius: float, **rest) -> Settings:
    """Settings of an attack on the last third of a run."""
    given = {
        "method": method,
        "radius": radius,
        "unit": "table",
        "loss": LOSSES.get(method, "ce"),
        "start": LATE,
        **rest,
    }
    if method == "softmax_margin":
        del given["unit"]  # it has one of its own
    given = {**given, "init": "uniform"} if method == "noise" and "init" not in rest else given
    return {f"adversarial.{name}": value for name, value in given.items()}


def sparse(method: str, target: float, **rest) -> Settings:
    """Settings of a sparsity constraint."""
    rest = {"start": 0.25, "distribution": "uniform", **rest} if method in ("rigl", "set") else rest
    return {f"sparsity.{name}": value for name, value in {"method": method, "target": target, **rest}.items()}


ALL, LATE = (0, 1, 2), 0.67
LOSSES = {"vat": "kl", "r3f": "sym_kl"}
ROW = {"delayed": True, "fraction": 1 / 32}  # one delayed row of 32
EIGHTH = {"delayed": True, "fraction": 1 / 8}
SMALLER = {"model.d_model": 152, "model.head_dim": 38, "model.d_ff": 408}  # 0.53 of the weights outside the table
# As many bytes as the model of 75 % zeros packed, its table included: a bit a weight and sixteen a weight that is left.
BYTES = {"model.d_model": 128, "model.head_dim": 32, "model.d_ff": 360}
# In the order in which they are worth having.
RECIPES = (
    Recipe("plain", {}, ALL),
    Recipe("delayed-0.2", adversarial("fgm", 0.2, **ROW, weight=2.0), ALL),
    Recipe("delayed-kl-0.1-eighth", adversarial("fgm", 0.1, **EIGHTH, loss="kl", weight=2.0), ALL),
    Recipe("delayed-kl-0.1", adversarial("fgm", 0.1, **ROW, loss="kl", weight=4.0), ALL),
    Recipe("fgm-kl-0.2", adversarial("fgm", 0.2, loss="kl"), ALL),
    Recipe("magnitude-75", sparse("magnitude", 0.75), ALL),
    Recipe("dense-0.53", SMALLER, ALL),
    Recipe("dense-0.53-longer", SMALLER | {"train.steps": 4249}, ALL),  # 1.74 times: as much training compute
    Recipe("dense-bytes", BYTES, ALL),
    Recipe("delayed-0.2-eighth", adversarial("fgm", 0.2, **EIGHTH)),
    Recipe("delayed-0.2-long", adversarial("fgm", 0.2, **ROW, weight=2.0, start=0.17)),
    Recipe("delayed-0.2-short", adversarial("fgm", 0.2, **ROW, start=0.84)),
    Recipe("delayed-0.5", adversarial("fgm", 0.5, **ROW)),
    Recipe("delayed-0.05-eighth", adversarial("fgm", 0.05, **EIGHTH)),
    Recipe("delayed-kl-0.2", adversarial("fgm", 0.2, **ROW, loss="kl", weight=2.0)),
    Recipe("delayed-kl-0.1-long", adversarial("fgm", 0.1, **ROW, loss="kl", weight=4.0, start=0.17)),
    Recipe("fgm-kl-0.05", adversarial("fgm", 0.05, loss="kl", weight=2.0)),
    Recipe("fgm-kl-0.15-row", adversarial("fgm", 0.15, fraction=1 / 32, loss="kl", weight=4.0, start=0.7)),
    Recipe("fgm-kl-all-0.2", adversarial("fgm", 0.2, loss="kl", fraction=1.0)),
    Recipe("fgm-kl-all-0.1", adversarial("fgm", 0.1, loss="kl", fraction=1.0, weight=0.5)),
    Recipe("fgm-all-0.2", adversarial("fgm", 0.2, fraction=1.0)),
    Recipe("noise-1-short", adversarial("noise", 1.0, fraction=1.0, init="gaussian", start=0.84)),
    Recipe("noise-0.2", adversarial("noise", 0.2, fraction=1.0)),
    Recipe("softmax_margin-0.03", adversarial("softmax_margin", 0.03)),
    Recipe("delayed-0.2+magnitude-75", adversarial("fgm", 0.2, **ROW, weight=2.0) | sparse("magnitude", 0.75)),
    Recipe("magnitude-50", sparse("magnitude", 0.5)),
    Recipe("rigl-75-late", sparse("rigl", 0.75)),  # all zeros at a quarter of the run, where magnitude begins
    Recipe("n_m-50", sparse("n_m", 0.5, pattern="2:4")),
    Recipe("n_m-75", sparse("n_m", 0.75, pattern="1:4")),
    Recipe("plain-1.35", {"train.steps": 3297}),
    Recipe("plain-1.7", {"train.steps": 4151}),
    Recipe("fgm-0.2", adversarial("fgm", 0.2)),
    Recipe("rigl-75", sparse("rigl", 0.75, start=0.0)),
    Recipe("set-75", sparse("set", 0.75, start=0.0)),
    Recipe("rigl-50", sparse("rigl", 0.5, start=0.0)),
    Recipe("set-50", sparse("set", 0.5, start=0.0)),
    Recipe("l1-0.02", sparse("l1", 0.0, strength=0.02)),
    Recipe("l1-0.3", sparse("l1", 0.0, strength=0.3)),
    Recipe("group_lasso-0.3", sparse("group_lasso", 0.0, pattern="neurons", strength=0.3)),
    Recipe("freelb-0.2", adversarial("freelb", 0.2, steps=2, fraction=1.0)),
    Recipe("pgd-0.2", adversarial("pgd", 0.2, steps=3, fraction=1.0)),
    Recipe("vat-0.2", adversarial("vat", 0.2, fraction=1.0, probe=0.1)),
    Recipe("r3f-0.2", adversarial("r3f", 0.2, fraction=1.0)),
)
ATTACK = ("--attack", "--attack-tokens", "4096", "--radii", "0.05", "0.1", "0.2", "0.5")


def command(*words: object) -> None:
    """Run a command of the package; its failure ends the tool with its exit code."""
    line = [sys.executable, "-m", "chinchilla_jax", *map(str, words)]
    print("$", *line[1:], flush=True)
    code = subprocess.run(line).returncode
    if code:
        sys.exit(code)


def flags(settings: Settings) -> list[str]:
    """Settings as the command line takes them."""
    words = []
    for name, value in settings.items():
        words += ["--" + name.replace("_", "-"), str(value).lower() if isinstance(value, bool) else str(value)]
    return words


def configured(settings: Settings, **more):
    """configs/ablation.py with settings."""
    from chinchilla_jax import config as configs
    from chinchilla_jax.commands.config_files import load

    return configs.replace(load(Path(CONFIG)), {**more, **settings})


def price(settings: Settings) -> float:
    """FLOPs of a step that attacks, with every layer and tile unrolled, as XLA counts them."""
    from chinchilla_jax.training.program import Program

    at_once = {"adversarial.start": 0.0} if "adversarial.method" in settings else {}
    unrolled = {"model.vocab_size": 1024, "objective.tile_tokens": 1 << 20}
    config = configured(settings | at_once, **unrolled)
    return Program(config).step(config.train.batch_size).cost_analysis()["flops"]


def cost(settings: Settings, plain: float) -> float:
    """FLOPs of a run in plain runs: before an attack starts, a step costs what a plain one does.

    But for delayed rows that diverge: they pay for it from the first step on (here too, where plain's steps stand in).
    """
    config = configured(settings)
    attack = config.adversarial.settled()
    late = "adversarial.method" in settings and not (attack.delayed and attack.loss != "ce")
    start = config.adversarial.start if late else 0.0
    return config.train.steps / configured({}).train.steps * (1 + (price(settings) / plain - 1) * (1 - start))


def runs_of(recipe: Recipe) -> Iterator[Run]:
    """The runs of a recipe, one a seed."""
    for seed in recipe.seeds:
        yield Run(f"{recipe.name}-s{seed}", recipe.name, recipe.settings, seed)


def fork(plain: Path, run: Run, folder: Path) -> None:
    """Begin `run` in `folder` from the last checkpoint that `plain`, of the same seed, has before the first attack.

    Only an attack can be added to a state of plain's: a sparse optimizer keeps more, other steps are another schedule.
    """
    from chinchilla_jax.commands.pretrain import open_store
    from chinchilla_jax.training import restore, resume
    from chinchilla_jax.training.checkpoint import Checkpoints
    from chinchilla_jax.training.program import Program

    if folder.exists() or not run.settings or not all(name.startswith("adversarial.") for name in run.settings):
        return
    config, store = open_store(configured(run.settings, **{"train.seed": run.seed}))
    first = config.adversarial.first(config.train.steps)
    step = (first - 1) // config.checkpoint.every * config.checkpoint.every
    if not (plain / "checkpoints" / str(step)).exists():
        return
    program = Program(config)
    meta = resume.meta(config, store, program.config.model.dtype)
    own = Program(resume.own_config(plain))
    found = restore.newest(plain / "checkpoints", own.abstract, level=config.checkpoint.verify, step=step)
    state = dataclasses.replace(found.state, carry=program.initial().carry)
    fresh = folder.with_name(folder.name + ".new")
    with Checkpoints(fresh / "checkpoints", config.checkpoint, meta=meta) as checkpoints:
        checkpoints.save(step, state, wait=True)
    os.rename(fresh, folder)


def train(runs: Path, run: Run) -> None:
    """Train and attack one run, unless both are done."""
    folder = runs / run.name
    if not (folder / "evaluation.json").exists():
        fork(runs / f"plain-s{run.seed}", run, folder)
        settings = flags({"train.seed": run.seed, **run.settings})
        command("pretrain", "--config", CONFIG, "--run-dir", folder, *settings)
        command("evaluate", "--run-dir", folder)
    if not (folder / "attack.json").exists():
        command("evaluate", "--run-dir", folder, *ATTACK)


def run(args) -> None:
    """Everything that is not there yet."""
    plain = functools.cache(lambda: price({}))  # compiled where something is missing, and once
    path = args.runs / "costs.json"
    args.runs.mkdir(parents=True, exist_ok=True)
    for recipe in RECIPES:
        asked = [run for run in runs_of(recipe) if not args.only or run.name in args.only.split(",")]
        if asked and recipe.name not in ablate_report.load(path):
            found = cost(recipe.settings, plain())
            costs = {**ablate_report.load(path), recipe.name: found}  # another `run` may have written meanwhile
            path.write_text(json.dumps(costs, indent=1) + "\n")
        for each in asked:
            train(args.runs, each)


def report(args) -> None:
    """docs/ablation/: report, figures and picture from the runs that are there."""
    ablate_report.write(args.runs, [run for recipe in RECIPES for run in runs_of(recipe)], args.out)


def main() -> None:
    """`run` or `report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablate"))
    parser.add_argument("--out", type=Path, default=Path("docs/ablation"))
    parser.add_argument("--study", choices=("attacks", "repeated"), default="attacks", help="see ablate_repeated.py")
    parser.add_argument("--size", choices=tuple(ablate_repeated.SIZES), default="full", help="of --study repeated")
    parser.add_argument("--text", default="data/quickstart", help="token store whose text is read (repeated)")
    parser.add_argument("--only", default="", help="runs to do, comma-separated, such as plain-s0")
    args = parser.parse_args()
    if args.study == "repeated":
        ablate_repeated.run(args, command, flags) if args.what == "run" else ablate_repeated.report(args)
        return
    {"run": run, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
