"""The report of `ablate.py`: tables, verdicts by rule, a picture, and every figure as JSON."""

import hashlib
import itertools
import json
import math
import statistics
import sys
from pathlib import Path

RADII = ("0.05", "0.1", "0.2", "0.5")
EVEN = 1.02  # cost in plain runs up to which equal steps are equal compute
LEAST = 0.2  # of the gap closed, from which on one can say what half of it would cost
BAR = {"closed": 0.5, "over": 0.02, "flops": 1.01}  # what an attack has to give, and may cost, to be recommended
# Of those with one seed.
MATTER = ("fgm-kl-all-0.1", "freelb-0.2", "vat-0.2", "noise-1-short", "rigl-75", "n_m-50")
NOTES = """
Losses are nats a token on the whole validation set, of a recipe's first run. Debian's documentation moves with its
releases: texts A, B and so on are versions of it (told by the tokenizers that they give), and losses compare within
one. All other differences to plain ("over plain", closed, area, typos) are means over runs of the difference to
plain's run of the same seed and text, where there is one ("runs" counts the others too: of magnitude-75's three two
have one, both of seed 0). "Equal compute" is the difference to a plain run of as many
FLOPs, where the recipe costs more than plain: read off what plain's longer runs gain, straight in the logarithm of
compute. Attacks are on 4,096 tokens of the set, radii in mean norms of the table's rows. The gap of a model is what
PGD-20 adds to its clean loss; "closed" is how much smaller it is than plain's, at the radius that the recipe trained
at where none is named (at 0.2 where nobody attacked at that). "Area" is the mean gap over the four radii, less
plain's. Typos: bits a clean byte over plain's, with 5 % of the characters wrong. FLOPs are XLA's count for the whole
run, in plain runs. Time is the median of the run's own steps after an attack's start against plain's; other runs
shared the machine: take FLOPs and `tools/bench_adversarial.py` for the truth. Runs of before `evaluate --attack`
measured accuracy were attacked in mean norms of the table's rows, later ones in the token's own; the two are not
compared. No recipe is said to earn its place that is not right more often under attack than plain with 1 % of the
unigram mixed into its predictions, beyond two standard errors.
"""


def load(path: Path) -> dict:
    """A JSON file, or nothing."""
    return json.loads(path.read_text()) if path.exists() else {}


def row(runs: Path, run, costs: dict[str, float]) -> dict | None:
    """One run's figures, or None where it is not finished."""
    clean, attack = load(runs / run.name / "evaluation.json"), load(runs / run.name / "attack.json")
    if not clean or not attack:
        return None
    radius = run.settings.get("adversarial.radius")
    return {
        "run": run.name,
        "recipe": run.recipe,
        "seed": run.seed,
        "text": hashlib.sha256((runs / run.name / "tokenizer.model").read_bytes()).hexdigest()[:8],
        "settings": run.settings,
        "radius": None if radius is None else str(radius),
        "loss": clean["loss_nats_per_token"],
        "bits_per_byte": clean["bits_per_byte"],
        "density": clean.get("density", 1.0),
        **{name: attack[name] for name in ("clean", "rand", "fgm", "pgd5", "pgd20", "ordered")},
        "area": area(attack),
        "unit": "token" if "rows" in attack else "table",
        "accuracy": {
            radius: {name: of["pgd20"][radius]["accuracy"] for name, of in attack.get("rows", {}).items()}
            for radius in RADII
        },
        **{name: attack.get(name) for name in ("typo", "word", "segmentation")},
        "flops": costs.get(run.recipe),
        "step_ms": step_ms(runs / run.name, run.settings.get("adversarial.start", 0.0)),
    }


def kept(earlier: Path, wanted: list, fresh: list[dict]) -> list[dict]:
    """The rows of an earlier report's JSON that `fresh` has not, of runs still wanted with the same settings."""
    settings, there = {run.name: run.settings for run in wanted}, {(row["run"], *place(row)) for row in fresh}
    rows = load(earlier).get("rows", ())
    return [r for r in rows if settings.get(r["run"]) == r["settings"] and (r["run"], *place(r)) not in there]


def place(row: dict) -> tuple:
    """What two runs must have in common to be compared: seed and text."""
    return row["seed"], row.get("text", ""), row.get("unit", "table")


def step_ms(folder: Path, start: float) -> float:
    """Median milliseconds of a step after a share `start` of the run, as the run logged them."""
    rows = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    return statistics.median(row["step_ms"] for row in rows if row["step"] > start * rows[-1]["step"])


class Group:
    """The runs of one recipe, beside plain's of the same seeds and texts."""

    def __init__(self, name: str, members: list[dict], plain: list[dict]):
        self.name, self.members, self.first = name, members, members[0]
        others = {place(other): other for other in plain}
        self.pairs = [(m, others[place(m)]) for m in members if place(m) in others]
        self.flops = self.first["flops"] or float("nan")
        self.sparse = any(key.startswith("sparsity.") for key in self.first["settings"])
        self.attacked = self.first["radius"] is not None
        self.over = self.mean(lambda m, p: m["loss"] - p["loss"])
        self.radius = self.first["radius"] if self.first["radius"] in RADII else "0.2"
        self.closed = self.closed_at(self.radius)

    @property
    def beats_mixture(self) -> bool:
        """Whether it is right more often under PGD-20 than plain with a little of the unigram mixed in, beyond two
        standard errors; not where nobody has measured it.
        """
        pairs = [
            (m.get("accuracy", {}).get(self.radius), p.get("accuracy", {}).get(self.radius)) for m, p in self.pairs
        ]
        if not all(m and p for m, p in pairs):
            return False
        diffs = [m["plain"][0] - p["mixture"][0] for m, p in pairs]
        errors = [math.hypot(m["plain"][1], p["mixture"][1]) for m, p in pairs]
        return statistics.fmean(diffs) > 2 * math.hypot(*errors) / len(errors)

    def against(self, curve: list[tuple[float, float]]) -> float | None:
        """Loss over that of a plain run of the same FLOPs, from (FLOPs, over plain) of plain runs; None where that says
        nothing.
        """
        between = [(a, b) for a, b in itertools.pairwise(sorted(curve)) if a[0] <= self.flops <= b[0]]
        if self.flops <= EVEN or not between:
            return None
        (low, worse), (high, better) = between[0]
        share = math.log(self.flops / low) / math.log(high / low)
        return self.over - (worse + share * (better - worse))

    def mean(self, figure) -> float:
        """The mean of figure(run, plain run) over the runs."""
        return statistics.fmean(figure(m, p) for m, p in self.pairs)

    def spread(self, figure) -> str:
        """The standard deviation over runs in words, where there are several."""
        values = [figure(m, p) for m, p in self.pairs]
        return f" (sd {statistics.stdev(values):.4f})" if len(values) > 1 else ""

    def closed_at(self, radius: str) -> float:
        """The share of plain's gap under PGD-20 that is gone."""
        return 1 - self.mean(lambda m, p: gap(m, radius)) / self.mean(lambda m, p: gap(p, radius))


def gap(member: dict, radius: str) -> float:
    """What PGD-20 adds to the clean loss, both on the attacked text."""
    return member["pgd20"][radius] - member["clean"]


def area(member: dict) -> float:
    """The mean gap over the radii."""
    return statistics.fmean(gap(member, radius) for radius in RADII)


def table(groups: list[Group], every: list[Group]) -> list[str]:
    """A row a recipe; equal compute by all runs of plain."""
    curve = [(g.flops, g.over) for g in every if g.name.startswith("plain")]
    texts = list(dict.fromkeys(m.get("text", "") for g in groups for m in g.members))
    head = ["recipe", "runs", "texts", "loss", "over plain", "equal compute", "closed", *(f"at {r}" for r in RADII)]
    head += ["area", "typos", "density", "FLOPs", "time"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for g in groups:
        cells = [
            g.name,
            str(len(g.members)),
            " ".join(sorted({chr(ord("A") + texts.index(m.get("text", ""))) for m in g.members})),
            f"{g.first['loss']:.4f}",
            f"{g.over:+.4f}{g.spread(lambda m, p: m['loss'] - p['loss'])}",
            "" if (even := g.against(curve)) is None else f"{even:+.4f}",
            f"{g.closed:.0%}" if g.attacked else "",
            *(f"{g.closed_at(r):.0%}" for r in RADII),
            f"{g.mean(lambda m, p: area(m) - area(p)):+.3f}",
            f"{g.mean(lambda m, p: m['typo']['0.05'] - p['typo']['0.05']):+.3f}",
            f"{g.first['density']:.3f}",
            f"{g.flops:.3f}",
            f"{g.mean(lambda m, p: m['step_ms'] / p['step_ms']):.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def verdicts(groups: list[Group], chosen: list[Group]) -> list[str]:
    """What the figures say of each chosen recipe, by the same rule for all."""
    lines = []
    for g in chosen:
        if g.attacked:
            lines.append(f"- **{g.name}** {of_attack(g, [o for o in groups if o.attacked and o is not g])}")
        elif g.sparse:
            lines.append(f"- **{g.name}** {of_zeros(g, [o for o in groups if o.name.startswith('dense')])}")
    return lines


def half(g: Group, radius: str) -> float:
    """Nats that closing half of the gap at `radius` would cost: clean loss grows with the square of what is closed.

    (Lab book.) Infinite where too little is closed to say so.
    """
    closed = g.closed_at(radius)
    return max(g.over, 0.0) * (BAR["closed"] / closed) ** 2 if closed >= LEAST else math.inf


def of_attack(g: Group, others: list[Group]) -> str:
    """Whether it meets the bar; else what half of the gap would cost, and who asks less for no more compute."""
    said = f"closes {g.closed:.0%} of the gap at {g.radius} for {g.over:+.3f} nats and {g.flops:.3f} plain runs"
    if g.closed >= BAR["closed"] and g.over <= BAR["over"] and g.flops <= BAR["flops"]:
        return f"{said}: **earns its place**." if g.beats_mixture else f"{said}: no more right than plain's mixture."
    mine = half(g, g.radius)
    there = [(half(o, g.radius), f"with {o.name}") for o in others if o.flops <= g.flops + 0.01]
    ways = [(mine, "this way"), *(way for way in [min(there, default=(math.inf, ""))] if way[0] < mine)]
    costs = ", ".join(f"{nats:.3f} {way}" for nats, way in ways if nats < math.inf)
    return f"{said}: no default" + (f"; half of the gap would cost about {costs}." if costs else ".")


def of_zeros(g: Group, dense: list[Group]) -> str:
    """Against plain, and against a dense model of about as many weights: on the same seed and text."""
    said = f"has {g.first['density']:.0%} of the weights and {g.over:+.3f} nats over plain"
    lines = [said]
    for o in dense if g.first["density"] < 0.4 else ():
        small = {place(m): m for m in o.members}
        diffs = [m["loss"] - small[place(m)]["loss"] for m in g.members if place(m) in small]
        if diffs:
            where = "below" if statistics.fmean(diffs) <= 0 else "above"
            each = f" ({', '.join(f'{diff:+.3f}' for diff in diffs)})" if len(diffs) > 1 else ""
            lines.append(f"{abs(statistics.fmean(diffs)):.3f} nats {where} {o.name}{each}, {verdict(diffs)}")
    return "; ".join(lines) + "."


def verdict(diffs: list[float]) -> str:
    """The word for losses less those of another, seed by seed: none inside two standard errors, nor of one seed."""
    if len(diffs) < 2:
        return "one seed: no verdict"
    mean, error = statistics.fmean(diffs), statistics.stdev(diffs) / math.sqrt(len(diffs))
    return "inside two standard errors" if abs(mean) <= 2 * error else "**better**" if mean < 0 else "worse"


def write(runs: Path, wanted: list, out: Path) -> None:
    """README.md, ablation.json and tradeoff.png in `out`, from the runs that are finished.

    What an earlier report there has of runs whose folders are gone stays, so that a comparison can go on elsewhere,
    maybe on another text.
    """
    costs, order = load(runs / "costs.json"), [run.name for run in wanted]
    fresh = [found for run in wanted if (found := row(runs, run, costs))]
    before = kept(out / "ablation.json", wanted, fresh)
    rows = sorted(before + fresh, key=lambda each: order.index(each["run"]))
    missing = [name for name in order if name not in {each["run"] for each in rows}]
    plain = [each for each in rows if each["recipe"] == "plain"]
    if not plain:
        print(f"error: {runs} has no finished run of plain to compare with: run --only plain-s0", file=sys.stderr)
        sys.exit(78)
    beside = {place(each) for each in plain}
    recipes = dict.fromkeys(each["recipe"] for each in rows if place(each) in beside)
    alone = [each["run"] for each in rows if each["recipe"] not in recipes]
    groups = [Group(name, [each for each in rows if each["recipe"] == name], plain) for name in recipes]
    out.mkdir(parents=True, exist_ok=True)
    (out / "ablation.json").write_text(json.dumps({"rows": rows, "missing": missing}, indent=1) + "\n")
    lines = [
        "# What attacks and zeros give and cost",
        "",
        "![clean loss against robustness, and loss against radius](tradeoff.png)",
        NOTES,
    ]
    chosen = [g for g in groups if len(g.members) > 1 or g.name in MATTER]
    lines += [*table(chosen, groups), "", "## Verdicts", "", *verdicts(groups, chosen), ""]
    others = [g.name for g in groups if g not in chosen]
    lines += [f"In ablation.json alone, as nothing follows from them: {', '.join(others)}.", ""] if others else []
    lines += [f"Listed in `tools/ablate.py` and not run: {', '.join(missing) or 'nothing'}.", ""]
    (out / "README.md").write_text("\n".join(lines))
    draw(groups, out / "tradeoff.png")
    print("\n".join(lines))
    print(f"{len(before)} of {len(rows)} runs are not in {runs}: their figures are those that {out} had.")
    if alone:
        print(f"left out, since plain has no run of any seed and text of theirs: {', '.join(alone)}")


def draw(groups: list[Group], path: Path) -> None:
    """What robustness costs, a point a recipe, at 0.2 and at the radius trained at; and the loss over the radius.

    The last of these of first runs on plain's text: of plain, of what has several and of what closes half of the gap.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(20, 8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    attacked = [g for g in groups if g.attacked]
    for axes, chosen, closed in (
        (left, groups, lambda g: g.closed_at("0.2")),
        (middle, attacked, lambda g: g.closed),
    ):
        for g in chosen:
            x, y = 100 * closed(g), g.over
            axes.plot(x, y, "s" if g.sparse else "o", color="tab:red" if g.sparse else "tab:blue")
            axes.annotate(g.name, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
        axes.axhline(BAR["over"], linestyle=":", color="gray")
        axes.axvline(100 * BAR["closed"], linestyle=":", color="gray")
        axes.set(ylabel="clean loss over plain, nats a token")
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_ylim(bottom=min((g.over for g in chosen), default=0.0) - 0.002)
    left.set(xlabel="gap under PGD-20 closed at 0.2, %")
    middle.set(xlabel="gap under PGD-20 closed at the radius trained at, %")
    known = [o for o in groups if place(o.first) == place(groups[0].first)]
    right.set_prop_cycle(color=colormaps["tab20"].colors)
    strong = {o.name for o in attacked if o.closed >= BAR["closed"]}
    for g in (o for o in known if o.name == "plain" or len(o.members) > 1 or o.name in strong):
        losses = [g.first["clean"], *(g.first["pgd20"][radius] for radius in RADII)]
        right.plot([0.0, *map(float, RADII)], losses, marker=".", label=g.name)
    right.set(xlabel="radius, in mean norms of the table's rows", ylabel="loss under PGD-20, nats a token")
    right.legend(fontsize=8)
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
