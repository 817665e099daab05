"""What the adversarial objectives and the sparsity constraints give and cost, on the same text with the same tokens.

    python tools/ablate.py run    --runs runs/ablate            # trains and attacks what is not there yet; resumes
    python tools/ablate.py run    --runs runs/ablate --only plain-s0,delayed-0.2-s0
    python tools/ablate.py report --runs runs/ablate --out docs/ablation

Each line of RECIPES is one set of overrides of configs/ablation.py. A recipe that costs more than 1.02 plain steps is
trained a second time with as many steps as plain's compute buys (`@compute`). The report reads what is there and says
which runs are missing.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CONFIG = "configs/ablation.py"
TOLERATED = 1.02  # cost in plain steps beyond which equal steps are not equal compute


class Recipe(NamedTuple):
    """A name, its settings, and the seeds it is trained with: three for what a claim rests on, one for the grid."""

    name: str
    settings: dict[str, object] = {}
    seeds: tuple[int, ...] = (0,)


def adversarial(method: str, radius: float, **rest) -> dict[str, object]:
    """Settings of an attack."""
    given = {"method": method, "radius": radius, **rest}
    return {f"adversarial.{name}": value for name, value in given.items()}


def sparse(method: str, target: float, **rest) -> dict[str, object]:
    """Settings of a sparsity constraint."""
    return {f"sparsity.{name}": value for name, value in {"method": method, "target": target, **rest}.items()}


ALL = (0, 1, 2)
SMALLER = {"model.d_model": 152, "model.head_dim": 38, "model.d_ff": 408}  # 0.53 of the weights outside the table
# In the order in which they are worth having.
RECIPES = (
    Recipe("plain", {}, ALL),
    Recipe("delayed-0.2", adversarial("fgm", 0.2, delayed=True), ALL),
    Recipe("magnitude-75", sparse("magnitude", 0.75)),
    Recipe("dense-0.53", SMALLER),
    Recipe("delayed-0.05", adversarial("fgm", 0.05, delayed=True)),
    Recipe("delayed-0.1", adversarial("fgm", 0.1, delayed=True)),
    Recipe("fgm-0.05", adversarial("fgm", 0.05)),
    Recipe("fgm-0.2", adversarial("fgm", 0.2)),
    Recipe("magnitude-50", sparse("magnitude", 0.5)),
    Recipe("delayed-0.2+magnitude-75", adversarial("fgm", 0.2, delayed=True) | sparse("magnitude", 0.75)),
    Recipe("noise-0.2", adversarial("noise", 0.2, fraction=1.0)),
    Recipe("rigl-75", sparse("rigl", 0.75)),
    Recipe("n_m-50", sparse("n_m", 0.5, pattern="2:4")),
    Recipe("fgm-all-0.2", adversarial("fgm", 0.2, fraction=1.0)),
    Recipe("softmax_margin-0.03", adversarial("softmax_margin", 0.03)),
    Recipe("set-75", sparse("set", 0.75)),
    Recipe("rigl-50", sparse("rigl", 0.5)),
    Recipe("l1", sparse("l1", 0.0, strength=1e-3)),
    Recipe("group_lasso", sparse("group_lasso", 0.0, pattern="neurons", strength=1e-3)),
    Recipe("freelb-0.2", adversarial("freelb", 0.2, steps=2, fraction=1.0)),
    Recipe("pgd-0.2", adversarial("pgd", 0.2, steps=3, fraction=1.0)),
    Recipe("vat-0.2", adversarial("vat", 0.2, fraction=1.0)),
    Recipe("r3f-0.2", adversarial("r3f", 0.2, fraction=1.0)),
)
ATTACK = ("--attack", "--attack-tokens", "16384", "--radii", "0.05", "0.1", "0.2", "0.5")


def command(*words: object) -> None:
    """Run a command of the package; its failure ends the tool with its exit code."""
    line = [sys.executable, "-m", "chinchilla_jax", *map(str, words)]
    print("$", *line[1:], flush=True)
    code = subprocess.run(line).returncode
    if code:
        sys.exit(code)


def flags(settings: dict[str, object]) -> list[str]:
    """Settings as the command line takes them."""
    words = []
    for name, value in settings.items():
        words += ["--" + name.replace("_", "-"), str(value).lower() if isinstance(value, bool) else str(value)]
    return words


def cost(settings: dict[str, object]) -> float:
    """FLOPs of a compiled step, with every layer and tile unrolled, as XLA counts them."""
    from chinchilla_jax import config as configs
    from chinchilla_jax.commands.cli import load
    from chinchilla_jax.training.program import Program

    base = configs.replace(load(Path(CONFIG)), {"model.vocab_size": 1024, "objective.tile_tokens": 1 << 20})
    config = configs.replace(base, {**settings, **started(settings)})
    return Program(config).step(config.train.batch_size).cost_analysis()["flops"]


def started(settings: dict[str, object]) -> dict[str, object]:
    """What shows the price of an attack: that of a step after its start."""
    return {"adversarial.start": 0.0} if "adversarial.method" in settings else {}


def wanted(only: str) -> list[tuple[str, dict[str, object], int]]:
    """(run, settings, seed) of every run, most wanted first."""
    runs = [(f"{r.name}-s{seed}", r.settings, seed) for r in RECIPES for seed in r.seeds]
    return [run for run in runs if not only or run[0] in only.split(",")]


def train(folder: Path, settings: dict[str, object], seed: int) -> None:
    """Train and attack one run, unless both are done."""
    if not (folder / "evaluation.json").exists():
        command("pretrain", "--config", CONFIG, "--run-dir", folder, "--train.seed", seed, *flags(settings))
        command("evaluate", "--run-dir", folder)
    if not (folder / "attack.json").exists():
        command("evaluate", "--run-dir", folder, *ATTACK)


def run(args) -> None:
    """Everything that is not there yet; the dearer recipes a second time at plain's compute."""
    plain = cost({})
    costs = json.loads((args.runs / "costs.json").read_text()) if (args.runs / "costs.json").exists() else {}
    for name, settings, seed in wanted(args.only):
        recipe = name.rsplit("-s", 1)[0]
        if recipe not in costs:
            costs[recipe] = cost(settings) / plain
            args.runs.mkdir(parents=True, exist_ok=True)
            (args.runs / "costs.json").write_text(json.dumps(costs, indent=1) + "\n")
        train(args.runs / name, settings, seed)
        if costs[recipe] > TOLERATED:
            steps = math.ceil(steps_of(CONFIG) / costs[recipe])
            train(args.runs / f"{recipe}@compute-s{seed}", {**settings, "train.steps": steps}, seed)


def steps_of(path: str) -> int:
    """Steps of a config file."""
    from chinchilla_jax.commands.cli import load

    return load(Path(path)).train.steps


def load(path: Path) -> dict:
    """A JSON file, or nothing."""
    return json.loads(path.read_text()) if path.exists() else {}


def row(runs: Path, name: str, recipe: str, costs: dict[str, float]) -> dict[str, object] | None:
    """One run's figures, or None where it is not finished."""
    clean, attack = load(runs / name / "evaluation.json"), load(runs / name / "attack.json")
    if not clean or not attack:
        return None
    return {
        "run": name,
        "recipe": recipe,
        "loss": clean["loss_nats_per_token"],
        "bits_per_byte": clean["bits_per_byte"],
        "attack": attack,
        "area": attack["area"],
        "pgd20": attack["pgd20"],
        "density": clean.get("density", 1.0),
        "flops": costs.get(recipe.removesuffix("@compute")),
        "seconds": seconds(runs / name),
    }


def seconds(folder: Path) -> float:
    """Median seconds of a step, as the run logged them."""
    lines = (folder / "timing.jsonl").read_text().splitlines()
    times = sorted(json.loads(line)["step_ms"] for line in lines)
    return times[len(times) // 2] / 1e3


def report(args) -> None:
    """docs/ablation.json, .md and .png from the runs that are there."""
    costs = load(args.runs / "costs.json")
    rows, missing = [], []
    for name, _, seed in wanted(""):
        recipe = name.rsplit("-s", 1)[0]
        twice = [recipe] + ([f"{recipe}@compute"] if costs.get(recipe, 1) > TOLERATED else [])
        for each in twice:
            found = row(args.runs, f"{each}-s{seed}", each, costs)
            rows += [found] if found else []
            missing += [] if found else [f"{each}-s{seed}"]
    args.out.with_suffix(".json").write_text(json.dumps({"rows": rows, "missing": missing}, indent=1) + "\n")
    grouped = {r["recipe"]: [o for o in rows if o["recipe"] == r["recipe"]] for r in rows}
    lines = ["| recipe | seeds | clean loss | over plain | area | PGD-20 at 0.2 | gap closed | density | FLOPs |"]
    lines += ["| --- " * 9 + "|"]
    base = grouped.get("plain", [])
    for recipe, members in grouped.items():
        lines.append(line(recipe, members, base))
    args.out.with_suffix(".table.md").write_text("\n".join(lines) + "\n")
    draw(grouped, args.out.with_suffix(".png"))
    print("\n".join(lines))
    print(f"missing: {', '.join(missing) or 'nothing'}")


def mean(values: list[float]) -> float:
    """The mean, of what there is."""
    return sum(values) / len(values) if values else math.nan


def gap(member: dict, radius: str) -> float:
    """PGD-20's loss over the clean one, both on the attacked text."""
    return member["attack"]["pgd20"][radius] - member["attack"]["clean"]


def line(recipe: str, members: list[dict], base: list[dict]) -> str:
    """A row of the table; "gap closed" compares with plain's mean at the same radius."""
    loss, plain = mean([m["loss"] for m in members]), mean([b["loss"] for b in base])
    closed = 1 - mean([gap(m, "0.2") for m in members]) / mean([gap(b, "0.2") for b in base])
    values = (
        recipe,
        len(members),
        f"{loss:.4f}",
        f"{loss - plain:+.4f}",
        f"{mean([m['area'] for m in members]):.3f}",
        f"{mean([m['pgd20']['0.2'] for m in members]):.3f}",
        f"{100 * closed:.0f} %",
        f"{mean([m['density'] for m in members]):.2f}",
        f"{members[0]['flops'] or math.nan:.3f}",
    )
    return "| " + " | ".join(map(str, values)) + " |"


def draw(grouped: dict[str, list[dict]], path: Path) -> None:
    """Clean loss against area under attack, a point a recipe."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for recipe, members in grouped.items():
        x, y = mean([m["area"] for m in members]), mean([m["loss"] for m in members])
        axes.plot(x, y, "o")
        axes.annotate(recipe, (x, y), textcoords="offset points", xytext=(5, 3), fontsize=8)
    axes.set(xlabel="area under attack, nats a token", ylabel="clean loss, nats a token")
    figure.savefig(path, dpi=120)


def main() -> None:
    """`run` or `report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablate"))
    parser.add_argument("--out", type=Path, default=Path("docs/ablation"))
    parser.add_argument("--only", default="", help="runs to do, comma-separated, such as plain-s0")
    args = parser.parse_args()
    {"run": run, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
