"""Tables of runs: of a known law with and without noise, and as files."""

import numpy as np

from chinchilla_jax.scaling import minimise as numerics
from chinchilla_jax.scaling.fit import Fit
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.minimise import objective
from chinchilla_jax.scaling.runs import table

ROUNDED = Surface(np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28)
HEAD = ["run_id", "n_total", "tokens", "loss", "unit", "flops_6ND_total"]


def grid(sizes=6, lengths=5):
    """Parameters and tokens of a small full grid."""
    return np.repeat(np.geomspace(3e7, 3e9, sizes), lengths), np.tile(np.geomspace(1e9, 5e10, lengths), sizes)


def noisy(seed=0, law=ROUNDED, **kwargs):
    """A table of runs of a known law with Laplace noise of half a per cent."""
    N, D = grid(**kwargs)
    return table(N, D, law.loss(N, D) * np.exp(np.random.default_rng(seed).laplace(0, 0.005, len(N))))


def convergence(theta, runs):
    """Log-parameters found elsewhere, as a fit that says whether they are an optimum."""
    at, goal = numerics.points(runs.N, runs.D, runs.loss), objective()
    theta = np.append(np.asarray(theta)[:5], 0.0)
    found = numerics.minimise(numerics.centred(theta, at)[None], at, goal, numerics.FORMS["chinchilla"], most=0)
    value = float(found.value[0])
    return Fit(runs, "chinchilla", goal, theta, value, float(found.gradient[0]), float("nan"), (value,))


def rows(**changes):
    """Four good rows; `loss_2=...` changes the column of the second."""
    found = [[f"r{i}", 1e7 * i, 1e9 * (5 - i), 4 - i / 2, "nats_token", 6e16 * i * (5 - i)] for i in range(1, 5)]
    for name, value in changes.items():
        column, row = name.rsplit("_", 1)
        found[int(row) - 1][HEAD.index(column)] = value
        if column in ("n_total", "tokens") and isinstance(value, float) and value > 0:
            found[int(row) - 1][5] = 6 * found[int(row) - 1][1] * found[int(row) - 1][2]
    return found


def write(path, table_rows, head=HEAD):
    """A CSV file."""
    path.write_text("\n".join([",".join(head), *(",".join(map(str, row)) for row in table_rows)]) + "\n")
    return path
