"""Everything that `fit` reports about a table of runs, in one record: the law, its doubts and its checks."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chinchilla_jax.config import require
from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling import approaches, doubt
from chinchilla_jax.scaling.answer import Question, answer
from chinchilla_jax.scaling.approaches import Budget, Line
from chinchilla_jax.scaling.doubt import Member, Replicates, bootstrap, calibrated
from chinchilla_jax.scaling.fit import Fit, spread
from chinchilla_jax.scaling.lawfile import Form, LawFile, thin
from chinchilla_jax.scaling.minimise import NAMES
from chinchilla_jax.scaling.runs import Runs, without_outliers

KEPT = 1000  # replicates that a law file holds, of all forms
QUANTILES = 101  # of the residuals
HELD_OUT = 0.2  # share of the runs, those of most compute, whose losses test the interval
DRIFT = 1.5  # largest over smallest D/N over the outlier cuts, beyond which a fit warns


@dataclass(frozen=True)
class Settings:
    """What a user may choose; `flops` are the budgets asked about: by default the runs' largest, x10, x100."""

    objective: str = "huber-log"
    delta: float = 1e-3
    form: str = "mixture"
    drop_outliers: int = 0
    floor: float | None = None
    replicates: int = 4000
    seed: int = 42
    protocol: str = "auto"
    workers: int = 1
    level: float = 0.9
    flops: tuple[float, ...] = ()
    budget_tolerance: float = approaches.SAME_BUDGET
    name: str = ""
    label: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Analysis:
    """A fit and what was found about it; `fit` and `replicates` are the leading form's.

    An approach that refused is its one line; `held_out` is (losses inside the interval, losses) or None.
    """

    settings: Settings
    members: list[Member]
    replicates: Replicates
    law: LawFile
    answers: list[dict[str, Any]]
    sensitivity: list[doubt.Choice]
    rollout: list[doubt.Predicted]
    profiles: dict[str, tuple[float, float]]
    envelope: Line | str
    isoflop: tuple[Line, list[Budget]] | str
    held_out: tuple[int, int] | None

    @property
    def fit(self) -> Fit:
        """The leading form's."""
        return self.members[0].fit

    @property
    def warnings(self) -> list[str]:
        """Everything that the reader should hold against the numbers, one line each."""
        found = self.fit.warnings()
        if self.replicates.converged is not None and self.replicates.converged < 0.99:
            found.append(f"{1 - self.replicates.converged:.1%} of the replicates did not converge")
        if (clusters := self.fit.runs.clusters) < 10:
            found.append(f"{clusters} independent runs are few for a bootstrap; take its intervals loosely")
        cuts = [row for row in self.sensitivity if row.tokens_per_param and row.what.startswith(("as ", "outlier"))]
        ratios = [row.tokens_per_param for row in cuts]
        if max(ratios) > DRIFT * min(ratios):
            found.append(
                f"tokens per parameter drift from {min(ratios):.3g} to {max(ratios):.3g} over the outlier cuts: a few "
                "rows decide; look at them and choose --drop-outliers"
            )
        found += [line for row in self.answers for line in row["warnings"]]
        return list(dict.fromkeys(found))


def analyse(whole: Runs, settings: Settings) -> Analysis:
    """Fit, bootstrap, checks and the other approaches. `UserError` for what no law can be read off."""
    require(0 < settings.level < 1, f"--level {settings.level:g}: a share between 0 and 1, such as 0.9")
    for C in settings.flops:
        require(C > 0 and np.isfinite(C), f"--flops {C:g}: a positive number of FLOPs")
    runs = without_outliers(whole, settings.drop_outliers)
    members = doubt.members(runs, settings.form, settings.objective, settings.delta, settings.floor)
    most = float(runs.C.max())
    flops = settings.flops or (most, 10 * most, 100 * most)
    settings = dataclasses.replace(settings, flops=tuple(flops))
    replicates = _bootstraps(members, settings)
    law = made(members, replicates, settings)
    lead = members[0].fit
    sensitivity = doubt.sensitivity(whole, lead, settings.drop_outliers, flops[0])
    law = dataclasses.replace(law, sensitivity=tuple(dataclasses.asdict(row) for row in sensitivity))
    exponents = ("alpha",) if lead.form in ("tied", "kaplan") else ("alpha", "beta")
    return Analysis(
        settings,
        members,
        replicates[0],
        law,
        [answered(law, C, settings.level) for C in flops],
        sensitivity,
        doubt.rollout(lead),
        {name: doubt.profile(lead, name, settings.level) for name in exponents},
        _or_line(lambda: approaches.envelope(runs)),
        _or_line(lambda: approaches.isoflop(runs, settings.budget_tolerance)),
        covered(runs, settings),
    )


def _or_line(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except UserError as error:
        return f"refused: {error}"


def _bootstraps(members: list[Member], settings: Settings) -> list[Replicates | None]:
    """Replicates of every form that comes to one at least in the law file."""
    s = settings
    return [
        bootstrap(one.fit, s.replicates, s.seed, s.protocol, workers=s.workers) if _kept(one, s) else None
        for one in members
    ]


def _kept(one: Member, settings: Settings) -> int:
    """How many replicates of a form a law file holds."""
    return round(one.weight * min(KEPT, settings.replicates))


def answered(law: LawFile, C: float, level: float) -> dict[str, Any]:
    """The answer at a budget of C FLOPs, as `plan` gives it, and what is wrong with it."""
    found = answer(law, Question(flops=C), level=level)
    at = found["params"]["value"], found["tokens"]["value"]
    return {"C": C, "inside": law.inside(*at), "warnings": law.warnings(*at), **found}


def law_of(runs: Runs, settings: Settings) -> LawFile:
    """The law of a table and nothing else; `UserError` where none can be read off it."""
    members = doubt.members(runs, settings.form, settings.objective, settings.delta, settings.floor)
    return made(members, _bootstraps(members, settings), settings)


def covered(runs: Runs, settings: Settings, share: float = HELD_OUT) -> tuple[int, int] | None:
    """How many losses of the runs of most compute lie in the interval that the others give, and how many they are."""
    out = doubt.largest(runs, share)
    s = dataclasses.replace(settings, replicates=min(settings.replicates, 400), workers=1)
    s = dataclasses.replace(s, protocol="auto" if s.protocol == "epoch" else s.protocol)
    try:
        law = law_of(runs.take(~out), s)
    except UserError:
        return None
    rows = [law.predict_loss(N, D, s.level)[1:] for N, D in zip(runs.N[out], runs.D[out])]
    return sum(low <= loss <= high for (low, high), loss in zip(rows, runs.loss[out])), int(out.sum())


def made(members: list[Member], replicates: list[Replicates | None], settings: Settings) -> LawFile:
    """The law of the fits of a table, as its file keeps it."""
    found, runs = members[0].fit, members[0].fit.runs
    columns = {"N": runs.N, "D": runs.D, "C": runs.C, "loss": runs.loss}
    ranges = {name: (float(v.min()), float(v.max())) for name, v in columns.items()}
    forms = [_form(one, again, ranges["C"][1] * 10, settings) for one, again in zip(members, replicates)]
    return LawFile(
        name=settings.name or "fit",
        label=settings.label,
        forms=tuple(forms),
        ranges=ranges,
        unit=runs.unit,
        count=runs.count,
        accounting=runs.accounting,
        per_nd=runs.per_nd,
        dataset=runs.dataset,
        tokenizer=runs.tokenizer,
        estimator=estimator(found, replicates[0], settings),
        runs=len(runs.N),
        clusters=runs.clusters,
        recipe=settings.recipe,
    )


def _form(one: Member, again: Replicates | None, C: float, settings: Settings) -> Form:
    """A member as a law file has it; the residuals of a fit are smaller than those of new runs, and are widened."""
    fit, n, p = one.fit, len(one.fit.runs.N), one.fit.free.shape[1]
    quantiles = -np.sqrt(n / (n - p)) * np.quantile(fit.residuals, np.linspace(0, 1, QUANTILES))[::-1]
    return Form(
        form=fit.form,
        theta=tuple(float(v) for v in fit.theta),
        weight=one.weight,
        rollout=one.rollout,
        converged=fit.converged,
        residuals=tuple(float(f"{v:.6g}") for v in quantiles),
        draws=None if again is None else thin(calibrated(fit, again), _kept(one, settings), C, fit.runs.per_nd),
    )


def estimator(found: Fit, again: Replicates, settings: Settings) -> dict[str, Any]:
    """How the law was come by, and the proof that it is an optimum."""
    left, ratio = spread(found.runs)
    return {
        "approach": 3,
        "forms": settings.form,
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
