"""A fitted law as a file: versioned JSON with the log-parameters at full precision and replicates of its bootstrap.

A law is one or several forms in one pot, each with a weight; the first gives the value, all of them the interval.
"""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax import __version__
from chinchilla_jax.config import closest, require
from chinchilla_jax.disk import read_json, write_text
from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling.law import Surface

FORMAT, VERSION = "chinchilla_jax law", 2
FORMS = ("chinchilla", "tied", "skaling", "kaplan")
DEFAULT = "massivetext"
FAR = 1000.0  # times the compute of the largest run, beyond which an answer is a guess
EVERYWHERE = (0.0, math.inf)


@dataclass(frozen=True)
class Form:
    """One form of a law: `theta` is (a, b, e, alpha, beta, ln k), `draws` (R, 6) its replicates, `weight` its share.

    `rollout` is the root mean square error of ln L when runs of more compute were predicted from the others;
    `residuals` evenly spaced quantiles of ln L observed minus predicted.
    """

    form: str
    theta: tuple[float, ...]
    weight: float = 1.0
    rollout: float | None = None
    converged: bool = True
    residuals: tuple[float, ...] = ()
    draws: np.ndarray | None = None


@dataclass(frozen=True)
class LawFile:
    """L(N, D) in `unit`, N as `count` has it, C = `per_nd` N D as `accounting` has it; `forms` the heaviest first.

    `ranges` are least and most N, D, C and loss of the runs; `recipe` what a run has to keep for the law to hold:
    the base "config" of a sweep, its "lr_exponent", and the "tokenizer" that the losses are counted in.
    """

    name: str
    forms: tuple[Form, ...]
    ranges: dict[str, tuple[float, float]]
    unit: str = "nats_token"
    count: str = "n_total"
    accounting: str = "6ND_total"
    per_nd: float = 6.0
    dataset: str = "unnamed"
    tokenizer: str = "unnamed"
    label: str = ""
    estimator: dict[str, Any] = field(default_factory=dict)
    runs: int = 0
    clusters: int = 0
    sensitivity: tuple[dict[str, Any], ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    created_by: str = f"chinchilla_jax {__version__}"

    @property
    def surface(self) -> Surface:
        """The best fit of the leading form."""
        theta = self.forms[0].theta
        return Surface(*(float(v) for v in theta[:5]), math.exp(theta[5]))

    @property
    def draws(self) -> np.ndarray | None:
        """Replicates (R, 6) of all forms, each in proportion to its weight; None where the file has none."""
        pots = [one.draws for one in self.forms if one.draws is not None]
        return np.concatenate(pots) if pots else None

    @property
    def replicates(self) -> Surface:
        """The pot's laws at once, fields of shape (R,). `UserError` where the file has none."""
        draws = self.draws
        if draws is None:
            raise UserError(f"the law {self.name} holds no replicates, hence no intervals; fit it from runs with `fit`")
        return Surface(*draws.T[:5], np.exp(draws[:, 5]))

    @property
    def floor(self) -> float:
        """exp(e), the loss that no compute gets below."""
        return math.exp(self.forms[0].theta[2])

    def scattered(self, losses: np.ndarray) -> np.ndarray:
        """Losses (R,) of the pot with the scatter of single runs about each form, drawn by a fixed seed."""
        off = []
        for one in self.forms:
            if one.draws is not None:
                residuals = np.array(one.residuals or (0.0,))
                off.append(residuals[np.random.RandomState(0).permutation(np.arange(len(one.draws)) % len(residuals))])
        return losses * np.exp(np.concatenate(off))

    def predict_loss(self, N: float, D: float, level: float = 0.9) -> tuple[float, float, float]:
        """(loss, low, high) of a new run of N parameters and D tokens: the law's doubt and a run's scatter."""
        low, high = percentiles(self.scattered(self.replicates.loss(N, D)), level)
        return float(self.surface.loss(N, D)), low, high

    def inside(self, N: float, D: float) -> bool:
        """Whether the runs it was fitted to reach round N and D, each by itself and in compute."""
        at = {"N": N, "D": D, "C": self.per_nd * N * D}
        return all(low <= at[name] <= high for name, (low, high) in self.ranges.items() if name in at)

    def warnings(self, N: float, D: float) -> list[str]:
        """What makes an answer at N and D worth less than it looks, one line each."""
        found, C = [], self.per_nd * N * D
        if not self.inside(N, D):
            shown = ", ".join(f"{name} {low:.2g} to {high:.2g}" for name, (low, high) in self.ranges.items())
            found.append(f"{C:.2g} FLOPs are outside the runs of the law ({shown}): an extrapolation")
        if FAR * self.ranges["C"][1] < C:
            found.append(f"{C:.2g} FLOPs are {C / self.ranges['C'][1]:,.0f} times the law's largest run: a guess")
        if not 2 <= D / N <= 300:
            found.append(f"{D / N:.3g} tokens a parameter are far from what public tables say (4 to 100)")
        if len(self.forms) == 1 and self.forms[0].draws is not None:
            found.append(f"the interval holds no doubt about the form ({self.forms[0].form}); --form mixture has it")
        return found


def percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """(low, high) between which the middle `level` of the replicates lies; inf where so many never get there."""
    require(0 < level < 1, f"level {level:g}: a share between 0 and 1, such as 0.9")
    ends = [50 * (1 - level), 50 * (1 + level)]
    if np.isfinite(values).all():
        low, high = np.percentile(values, ends)
    else:
        low, high = np.percentile(values, ends, method="nearest")
    return float(low), float(high)


def thin(draws: np.ndarray, most: int, C: float, per_nd: float = 6.0) -> np.ndarray:
    """`most` of the replicates, evenly spaced by D/N at C, so that its percentiles stay; rounded as a file has them."""
    if len(draws) > most:
        N, D = Surface(*draws.T[:5], np.exp(draws[:, 5])).optimum(C, per_nd)
        chosen = np.argsort(D / N)[np.round((np.arange(most) + 0.5) * len(draws) / most - 0.5).astype(int)]
        draws = draws[np.sort(chosen)]
    return np.array([[float(f"{v:.8g}") for v in row] for row in draws.tolist()]).reshape(-1, 6)


def save(law: LawFile, path: Path) -> None:
    """Write the file, a replicate a line."""
    values = dataclasses.asdict(law)
    forms = [one | {"draws": None if one["draws"] is None else one["draws"].tolist()} for one in values.pop("forms")]
    head = {"format": FORMAT, "version": VERSION} | values
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    lines.append(' "forms": [' + ",\n".join(map(_form_text, forms)) + "]")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _form_text(form: dict[str, Any]) -> str:
    rows = form.pop("draws")
    shown = "null" if rows is None else "[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]"
    return json.dumps(form)[:-1] + f', "draws": {shown}}}'


def load(path: Path) -> LawFile:
    """The law in a file. `UserError` names what is missing, of another version or no number."""
    require(path.is_file(), f"{path}: no such law file; write one with fit RUNS --out DIR")
    values = read_json(path, "write it again with fit")
    require(values.pop("format", None) == FORMAT, f"{path} is no law file of fit")
    version = values.pop("version", None)
    require(version == VERSION, f"{path} is a law of version {version}; this program reads {VERSION}: fit it again")
    return _checked(path, values)


def _checked(path: Path, values: dict[str, Any]) -> LawFile:
    _known(path, LawFile, values)
    require(isinstance(values["forms"], list) and len(values["forms"]) > 0, f"{path}: forms is no list of forms")
    forms = tuple(_form(path, one) for one in values["forms"])
    require(isinstance(values["ranges"], dict), f"{path}: ranges is no table of N, D, C and loss")
    for name in ("N", "D", "C", "loss"):
        require(name in values["ranges"], f"{path}: ranges has no {name}; write it again with fit")
    recipe = values.get("recipe", {})
    require(recipe == {} or (isinstance(recipe, dict) and "config" in recipe), f"{path}: recipe has no config")
    pairs = {name: _numbers(path, f"ranges {name}", pair, (2,)) for name, pair in values["ranges"].items()}
    per_nd = values.get("per_nd", 6.0)
    good = isinstance(per_nd, int | float) and math.isfinite(per_nd) and per_nd > 0
    require(good, f"{path}: per_nd {per_nd!r} is not a positive number")
    ranges = {name: tuple(pair.tolist()) for name, pair in pairs.items()}
    read = {"forms": forms, "ranges": ranges, "sensitivity": tuple(values.get("sensitivity", ()))}
    return LawFile(**(values | read))


def _known(path: Path, kind: type, values: Any) -> None:
    require(isinstance(values, dict), f"{path}: {kind.__name__} is no table of names")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for name in values:
        require(name in fields, f"{path}: unknown entry {name}{closest(name, fields)}")
    for name, item in fields.items():
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        require(name in values or not needed, f"{path}: no entry {name}; write it again with fit")


def _form(path: Path, values: Any) -> Form:
    _known(path, Form, values)
    require(values["form"] in FORMS, f"{path}: form {values['form']!r} is none of {', '.join(FORMS)}")
    theta = _numbers(path, "theta", values["theta"], (6,))
    require(theta[3] > 0 and theta[4] > 0, f"{path}: theta has an exponent that is not positive")
    draws = values.get("draws")
    draws = None if draws is None else _numbers(path, "draws", draws, (None, 6))
    weight = float(_numbers(path, "weight", values.get("weight", 1.0), ()))
    residuals = tuple(_numbers(path, "residuals", values.get("residuals", ()), (None,)).tolist())
    checked = {"theta": tuple(theta.tolist()), "draws": draws, "residuals": residuals, "weight": weight}
    return Form(**(values | checked))


def _numbers(path: Path, name: str, values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    try:
        found = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {name} holds what is no number ({error})") from error
    fits = found.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, found.shape))
    require(fits, f"{path}: {name} has shape {found.shape}, not {tuple('any' if n is None else n for n in shape)}")
    require(bool(np.isfinite(found).all()), f"{path}: {name} holds what is not finite")
    return found


@functools.cache
def shipped() -> dict[str, LawFile]:
    """Our own laws by name."""
    folder = Path(str(resources.files("chinchilla_jax.scaling") / "data"))
    return {path.stem: load(path) for path in sorted(folder.glob("*.json"))}


def default() -> LawFile:
    """The law where a user names none: MassiveText, 2022, as reconstructed from the figure of Hoffmann et al."""
    return shipped()[DEFAULT]
