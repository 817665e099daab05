"""What a fit is worth: other defensible choices on the same runs, and the largest runs foretold from the smaller."""

from dataclasses import dataclass

import numpy as np

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling.fit import Fit, fit
from chinchilla_jax.scaling.runs import Runs, without_outliers

LEFT_OUT = (0.1, 0.2, 0.3, 0.5)  # shares of the independent runs, those of most compute, that are foretold
CHOICES = (  # what a row of the sensitivity table changes
    {"delta": 1e-2}, {"delta": 1e-4}, {"name": "lad-log"}, {"name": "mse-log"}, {"name": "mse-level"},
    {"name": "asymmetric"}, {"form": "tied"}, {"form": "skaling"},
)  # fmt: skip
CUTS = (0, 1, 3, 5, 10)  # highest losses left out, as `--drop-outliers`


@dataclass(frozen=True)
class Choice:
    """One row: what was changed, and the optimum at the budget asked about; `note` where the fit refused or failed."""

    what: str
    params: float | None = None
    tokens_per_param: float | None = None
    loss: float | None = None
    exponent: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Foretold:
    """A roll-out: the law of the smaller runs against the larger ones; errors of ln L, predicted minus observed."""

    fitted_on: int
    foretold: int
    C_fitted: float
    C_foretold: float
    mean_error: float | None
    worst_error: float | None
    note: str = ""


def sensitivity(whole: Runs, chosen: Fit, cut: int, C: float) -> list[Choice]:
    """The optimum at C under other objectives, deltas, forms and outlier cuts (`cut` is the own) of `whole`."""
    own = {"name": chosen.goal.name, "delta": chosen.goal.delta, "form": chosen.form}
    rows = [_row("as chosen", chosen, C)]
    for change in CHOICES:
        settings = own | change
        what = ", ".join(f"{name if name != 'name' else 'objective'} {value}" for name, value in change.items())
        if settings != own and not ("delta" in change and own["name"] not in ("huber-log", "asymmetric")):
            rows.append(_tried(what, lambda s=settings: fit(chosen.runs, **s), C))
    for k in CUTS:
        if k != cut and k < len(whole.N) / 4:
            rows.append(_tried(f"outlier cut {k}", lambda k=k: fit(without_outliers(whole, k), **own), C))
    return rows


def _tried(what: str, make, C: float) -> Choice:
    try:
        return _row(what, make(), C)
    except UserError as error:
        return Choice(what, note=f"refused: {error}")


def _row(what: str, found: Fit, C: float) -> Choice:
    law = found.surface
    N, D = law.optimum(C, found.runs.per_nd)
    note = "" if found.converged else "unconverged"
    return Choice(what, float(N), float(D / N), float(law.loss(N, D)), float(law.exponents[0]), note)


def rollout(chosen: Fit) -> list[Foretold]:
    """Leave the runs of most compute out, a tenth to a half of them, and foretell their losses."""
    runs = chosen.runs
    names = np.unique(runs.cluster)
    largest = np.array([runs.C[runs.cluster == name].max() for name in names])
    order = names[np.argsort(largest, kind="stable")]
    rows = []
    for share in LEFT_OUT:
        count = max(1, round(share * len(order)))
        out = np.isin(runs.cluster, order[len(order) - count :])
        rows.append(_foretell(chosen, runs, out))
    return rows


def _foretell(chosen: Fit, runs: Runs, out: np.ndarray) -> Foretold:
    small = runs.take(~out)
    sizes = int((~out).sum()), int(out.sum()), float(runs.C[~out].max(initial=0)), float(runs.C[out].max())
    try:
        law = fit(small, chosen.goal.name, chosen.goal.delta, chosen.form).surface
    except UserError as error:
        return Foretold(*sizes, None, None, f"refused: {error}")
    errors = np.log(law.loss(runs.N[out], runs.D[out]) / runs.loss[out])
    return Foretold(*sizes, float(errors.mean()), float(errors[np.argmax(np.abs(errors))]))


def residual_table(found: Fit, rows: int = 10) -> list[dict[str, float]]:
    """The rows that the law misses most, and the mean miss by thirds of N, D and D / N (a saddle shows there)."""
    order = np.argsort(-np.abs(found.residuals))[:rows]
    runs = found.runs
    return [
        {"row": int(runs.row[i]), "params": float(runs.N[i]), "tokens": float(runs.D[i]), "loss": float(runs.loss[i]),
         "residual_percent": 100 * float(np.expm1(found.residuals[i]))}
        for i in order
    ]  # fmt: skip


def trends(found: Fit) -> list[dict[str, float | str]]:
    """Mean residual in per cent by thirds of parameters, tokens and tokens per parameter; structure is form error."""
    runs, table = found.runs, []
    for what, values in (("params", runs.N), ("tokens", runs.D), ("tokens_per_param", runs.D / runs.N)):
        thirds = np.array_split(np.argsort(values, kind="stable"), 3)
        means = [100 * float(np.expm1(found.residuals[part].mean())) if len(part) else float("nan") for part in thirds]
        table.append(dict(zip(("by", "low", "middle", "high"), (what, *means))))
    return table
