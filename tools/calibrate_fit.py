"""How often the nominal interval of D/N holds the truth: runs drawn from a known law over several designs.

    python tools/calibrate_fit.py                               # every design, 200 seeds, Laplace noise: half an hour
    python tools/calibrate_fit.py --designs isoflop-5x8 --noise normal --beyond 1 --seeds 100

The interval is the one that `fit` and `plan` print; the question is the optimum at `--beyond` times the largest run.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chinchilla_jax.scaling import analysis
from chinchilla_jax.scaling.answer import Question, answer
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.minimise import FORMS
from chinchilla_jax.scaling.runs import table

TRUTH = Surface(6.16924638, 7.67015673, 0.59730681, 0.34731, 0.367172)
NOISE = 0.0047  # mean absolute residual of ln L at the 240 points of Chinchilla's figure


def isoflop(budgets: int, sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes from a quarter to four times the optimum, 1e18 to 1e21 FLOPs."""
    C = np.repeat(np.geomspace(1e18, 1e21, budgets), sizes)
    N = TRUTH.optimum(C)[0] * np.tile(np.geomspace(0.25, 4, sizes), budgets)
    return N, C / 6 / N


def grid(sizes: int, lengths: int) -> tuple[np.ndarray, np.ndarray]:
    """Every size at every length."""
    return np.repeat(np.geomspace(3e7, 3e9, sizes), lengths), np.tile(np.geomspace(1e9, 5e10, lengths), sizes)


def corner(arm: int) -> tuple[np.ndarray, np.ndarray]:
    """An L: all sizes at one length, one size at all lengths."""
    N = np.r_[np.geomspace(3e7, 3e9, arm), np.full(arm, 1e8)]
    return N, np.r_[np.full(arm, 2e9), np.geomspace(5e8, 1e11, arm)]


def scattered(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and lengths at random."""
    random = np.random.default_rng(5)
    N = np.exp(random.uniform(np.log(3e7), np.log(3e9), rows))
    return N, np.exp(random.uniform(np.log(5e8), np.log(1e11), rows))


DESIGNS = {  # N, D and the cluster of every row: None where each is a run of its own
    "isoflop-5x8": (*isoflop(5, 8), None),
    "isoflop-5x5": (*isoflop(5, 5), None),
    "isoflop-4x5": (*isoflop(4, 5), None),
    "isoflop-10x24": (*isoflop(10, 24), None),
    "grid-6x5": (*grid(6, 5), None),
    "grid-5x4": (*grid(5, 4), None),
    "corner-40": (*corner(20), None),
    "corner-20": (*corner(10), None),
    "random-30": (*scattered(30), None),
    "random-20": (*scattered(20), None),
    "branches-10x6": (*grid(10, 6), np.repeat(np.arange(10), 6)),
    "branches-20x4": (*grid(20, 4), np.repeat(np.arange(20), 4)),
}


def coverage(design: str, seeds: int, noise: str, beyond: float, replicates: int, form: str, level: float) -> float:
    """The share of `seeds` whose interval of D/N holds the truth."""
    N, D, cluster = DESIGNS[design]
    C = beyond * 6 * float((N * D).max())
    truth_N, truth_D = TRUTH.optimum(C)
    hits = 0
    for seed in range(seeds):
        random = np.random.default_rng(1000 + seed)
        draw = {"laplace": random.laplace, "normal": random.normal}[noise]
        off = draw(0, NOISE, len(N))
        if cluster is not None:  # most of the noise belongs to the run, and its checkpoints share it
            off = 0.4 * off + draw(0, NOISE, cluster.max() + 1)[cluster]
        settings = analysis.Settings(form=form, replicates=replicates, seed=seed)
        law = analysis.law_of(table(N, D, TRUTH.loss(N, D) * np.exp(off), cluster), settings)
        low, high = answer(law, Question(flops=C), level=level)["tokens_per_param"]["interval"]
        hits += low <= truth_D / truth_N <= high
    return hits / seeds


def main() -> None:
    """Print a line for every design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--noise", default="laplace", choices=("laplace", "normal"))
    parser.add_argument("--beyond", type=float, default=10.0)
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--form", default="mixture", choices=("mixture", *FORMS))
    parser.add_argument("--level", type=float, default=0.9)
    args = parser.parse_args()
    for design in args.designs:
        share = coverage(design, args.seeds, args.noise, args.beyond, args.replicates, args.form, args.level)
        print(f"{design:<14} {args.noise} at {args.beyond:g} x: {share:.1%} of {args.seeds}", flush=True)


if __name__ == "__main__":
    main()
