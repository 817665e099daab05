"""Everything that `fit` reports about a table of runs, in one record: the law, its doubts and its checks."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling import approaches, validate
from chinchilla_jax.scaling.approaches import Budget, Line
from chinchilla_jax.scaling.fit import Fit, fit, spread
from chinchilla_jax.scaling.lawfile import QUANTITIES, Law, thin
from chinchilla_jax.scaling.parametric import FORMS, NAMES
from chinchilla_jax.scaling.runs import Runs, without_outliers
from chinchilla_jax.scaling.uncertainty import Replicates, bootstrap, calibrated, profile

KEPT = 1000  # replicates that a law file holds
QUANTILES = 101  # of the residuals


@dataclass(frozen=True)
class Settings:
    """What a user may choose; `flops` are the budgets asked about: by default the runs' largest, x10, x100."""

    objective: str = "huber-log"
    delta: float = 1e-3
    form: str = "chinchilla"
    drop_outliers: int = 0
    replicates: int = 4000
    seed: int = 42
    protocol: str = "auto"
    workers: int = 1
    level: float = 0.9
    flops: tuple[float, ...] = ()
    name: str = ""
    label: str = ""


@dataclass(frozen=True)
class Analysis:
    """A fit and what was found about it; an approach that refused is its one line."""

    settings: Settings
    fit: Fit
    replicates: Replicates
    law: Law
    answers: list[dict[str, Any]]
    sensitivity: list[validate.Choice]
    rollout: list[validate.Foretold]
    profiles: dict[str, tuple[float, float]]
    envelope: Line | str
    isoflop: tuple[Line, list[Budget]] | str

    @property
    def warnings(self) -> list[str]:
        """Everything that the reader should hold against the numbers, one line each."""
        found = self.fit.warnings()
        if self.replicates.converged is not None and self.replicates.converged < 0.99:
            found.append(f"{1 - self.replicates.converged:.1%} of the replicates did not converge")
        if self.fit.runs.clusters < 10:
            found.append(
                f"{self.fit.runs.clusters} independent runs are few for a bootstrap; take its intervals loosely"
            )
        return found


def analyse(whole: Runs, settings: Settings) -> Analysis:
    """Fit, bootstrap, checks and the other approaches. `UserError` for what no law can be read off."""
    require(0 < settings.level < 1, f"--level {settings.level:g}: a share between 0 and 1, such as 0.9")
    for C in settings.flops:
        require(C > 0 and np.isfinite(C), f"--flops {C:g}: a positive number of FLOPs")
    runs = without_outliers(whole, settings.drop_outliers)
    found = fit(runs, settings.objective, settings.delta, settings.form)
    most = float(runs.C.max())
    flops = settings.flops or (most, 10 * most, 100 * most)
    settings = dataclasses.replace(settings, flops=tuple(flops))
    again = bootstrap(found, settings.replicates, settings.seed, settings.protocol, workers=settings.workers)
    law = made(found, again, settings)
    sensitivity = validate.sensitivity(whole, found, settings.drop_outliers, flops[0])
    law = dataclasses.replace(law, sensitivity=tuple(dataclasses.asdict(row) for row in sensitivity))
    full = dataclasses.replace(law, draws=calibrated(found, again))
    exponents = ("alpha",) if found.form in ("tied", "kaplan") else ("alpha", "beta")
    return Analysis(
        settings,
        found,
        again,
        law,
        [answer(full, C, settings.level) for C in flops],
        sensitivity,
        validate.rollout(found),
        {name: profile(found, name, settings.level) for name in exponents},
        _or_line(lambda: approaches.envelope(runs)),
        _or_line(lambda: approaches.isoflop(runs)),
    )


def _or_line(make) -> Any:
    try:
        return make()
    except UserError as error:
        return f"refused: {error}"


def answer(law: Law, C: float, level: float) -> dict[str, Any]:
    """Every quantity at the optimum of C, with its interval, and the loss of a new run there."""
    N, D = (float(v) for v in law.surface.optimum(C, law.flops))
    figures = {
        name: {"value": float(law.quantity(name, C)), "interval": list(law.interval(name, C, level))}
        for name in QUANTITIES
    }
    _, low, high = law.predict_loss(N, D, level)
    figures["loss"]["prediction"] = [low, high]
    return {"flops": C, "inside": law.inside(N, D), **figures}


def made(found: Fit, again: Replicates, settings: Settings) -> Law:
    """The law of a fit, as its file keeps it."""
    runs, n = found.runs, len(found.runs.N)
    p = FORMS[found.form].shape[1]
    wider = np.sqrt(n / (n - p))  # residuals of a fit are smaller than those of new runs
    quantiles = -wider * np.quantile(found.residuals, np.linspace(0, 1, QUANTILES))[::-1]
    ranges = {name: (float(v.min()), float(v.max())) for name, v in _columns(runs).items()}
    return Law(
        name=settings.name or "fit",
        label=settings.label,
        form=found.form,
        theta=tuple(float(v) for v in found.theta),
        ranges=ranges,
        draws=thin(calibrated(found, again), KEPT, ranges["C"][1] * 10),
        residuals=tuple(float(f"{v:.6g}") for v in quantiles),
        unit=runs.unit,
        count=runs.count,
        accounting=runs.accounting,
        flops=runs.per_nd,
        dataset=runs.dataset,
        tokenizer=runs.tokenizer,
        estimator=estimator(found, again, settings),
        runs=n,
        clusters=runs.clusters,
        converged=found.converged,
    )


def _columns(runs: Runs) -> dict[str, np.ndarray]:
    return {"N": runs.N, "D": runs.D, "C": runs.C, "loss": runs.loss}


def estimator(found: Fit, again: Replicates, settings: Settings) -> dict[str, Any]:
    """How the law was come by, and the proof that it is an optimum."""
    left, ratio = spread(found.runs)
    return {
        "approach": 3,
        "objective": found.goal.label,
        "value": found.value,
        "relative_gradient": found.gradient,
        "starts": len(found.starts),
        "starts_agree": found.agreement,
        "condition": found.condition,
        "tokens_per_param_spread": ratio,
        "sd_ln_tokens_given_params": left,
        "outlier_cut": settings.drop_outliers,
        "bootstrap": {
            "unit": "independent run",
            "replicates": len(again.theta),
            "seed": again.seed,
            "protocol": again.protocol,
            "converged": again.converged,
        },
    }


def standard_errors(again: Replicates) -> dict[str, float]:
    """Of A, B, E and the exponents over the replicates as they came, as Besiroglu et al. 2024 print them."""
    columns = {"A": np.exp(again.theta[:, 0]), "B": np.exp(again.theta[:, 1]), "E": np.exp(again.theta[:, 2])}
    columns |= {name: again.theta[:, NAMES.index(name)] for name in ("alpha", "beta")}
    return {name: float(values.std(ddof=1)) for name, values in columns.items()}
