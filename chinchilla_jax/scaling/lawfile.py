"""A fitted law as a file: versioned JSON with the log-parameters at full precision and the replicates of its bootstrap.

`save(law, path)`, `load(path)`, `default()`; a `Law` answers with intervals and says where its runs end.
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
from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling.surface import Surface, inside

FORMAT, VERSION = "chinchilla_jax law", 1
FORMS = ("chinchilla", "tied", "skaling", "kaplan")
DEFAULT = "epoch_exact.json"
RANGES = ("N", "D", "C", "loss")
QUANTITIES = {  # what an interval can be asked of: from a law, its optimum (N, D) and the loss there
    "params": lambda law, N, D: N,
    "tokens": lambda law, N, D: D,
    "tokens_per_param": lambda law, N, D: D / N,
    "loss": lambda law, N, D: law.loss(N, D),
    "exponent_n": lambda law, N, D: law.exponents[0] + 0 * N,
    "exponent_d": lambda law, N, D: law.exponents[1] + 0 * N,
}


@dataclass(frozen=True)
class Law:
    """L(N, D) in `unit`, N as `count` has it, C = `flops` N D as `accounting` has it.

    `theta` is (a, b, e, alpha, beta, ln k); `draws` (R, 6) those of the bootstrap, whose percentiles are the intervals;
    `residuals` evenly spaced quantiles of ln L observed minus predicted; `ranges` least and most N, D, C, loss of runs.
    """

    name: str
    form: str
    theta: tuple[float, ...]
    ranges: dict[str, tuple[float, float]]
    draws: np.ndarray | None = None
    residuals: tuple[float, ...] = ()
    unit: str = "nats_token"
    count: str = "n_total"
    accounting: str = "6ND"
    flops: float = 6.0
    dataset: str = "unnamed"
    tokenizer: str = "unnamed"
    label: str = ""
    estimator: dict[str, Any] = field(default_factory=dict)
    runs: int = 0
    clusters: int = 0
    converged: bool = True
    sensitivity: tuple[dict[str, Any], ...] = ()
    created_by: str = f"chinchilla_jax {__version__}"

    @property
    def surface(self) -> Surface:
        """The best fit."""
        return Surface(*(float(v) for v in self.theta[:5]), math.exp(self.theta[5]))

    @property
    def replicates(self) -> Surface | None:
        """The bootstrap's laws at once, fields of shape (R,); None where the file has none."""
        return None if self.draws is None else Surface(*self.draws.T[:5], np.exp(self.draws[:, 5]))

    @property
    def floor(self) -> float:
        """exp(e), the loss that no compute gets below."""
        return math.exp(self.theta[2])

    def quantity(self, quantity: str, C: Any) -> np.ndarray:
        """`quantity` (of `QUANTITIES`) at the optimum of C FLOPs."""
        _known(quantity)
        return QUANTITIES[quantity](self.surface, *self.surface.optimum(C, self.flops))

    def interval(self, quantity: str, C: float, level: float = 0.9) -> tuple[float, float]:
        """(low, high) of `quantity` at the optimum of C FLOPs, by the bootstrap's percentiles."""
        _known(quantity)
        laws = self._laws()
        return percentiles(QUANTITIES[quantity](laws, *laws.optimum(C, self.flops)), level)

    def predict_loss(self, N: float, D: float, level: float = 0.9) -> tuple[float, float, float]:
        """(loss, low, high) of a new run of N parameters and D tokens: the law's doubt and a run's scatter."""
        return float(self.surface.loss(N, D)), *percentiles(self.scattered(self._laws().loss(N, D)), level)

    def scattered(self, losses: np.ndarray) -> np.ndarray:
        """Losses (R,) with the scatter of single runs about the law, drawn by a fixed seed from the fit's residuals."""
        if not self.residuals:
            return np.asarray(losses, np.float64)
        residuals = np.array(self.residuals)
        turns = np.random.RandomState(0).permutation(np.arange(np.size(losses)) % len(residuals))
        return losses * np.exp(residuals[turns])

    def inside(self, N: float, D: float) -> bool:
        """Whether the runs it was fitted to reach round N and D, each by itself and in compute."""
        return inside(self.ranges, N, D, self.flops)

    def _laws(self) -> Surface:
        if self.draws is None:
            raise UserError(f"the law {self.name} holds no replicates, hence no intervals; fit it from runs with `fit`")
        return self.replicates


def _known(quantity: str) -> None:
    require(quantity in QUANTITIES, f"no quantity {quantity!r}{closest(quantity, QUANTITIES)}: {', '.join(QUANTITIES)}")


def percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """(low, high) between which the middle `level` of the replicates lies."""
    require(0 < level < 1, f"level {level:g}: a share between 0 and 1, such as 0.9")
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def thin(draws: np.ndarray, most: int, C: float) -> np.ndarray:
    """`most` of the replicates, evenly spaced by D/N at C, so that its percentiles stay."""
    if len(draws) <= most:
        return draws
    N, D = Surface(*draws.T[:5], np.exp(draws[:, 5])).optimum(C)
    chosen = np.argsort(D / N)[np.round((np.arange(most) + 0.5) * len(draws) / most - 0.5).astype(int)]
    return draws[np.sort(chosen)]


def save(law: Law, path: Path) -> None:
    """Write the file; the replicates are rounded to eight digits, everything else is exact."""
    values = dataclasses.asdict(law)
    draws = values.pop("draws")
    values["draws"] = None if draws is None else [[float(f"{v:.8g}") for v in row] for row in draws.tolist()]
    head = {"format": FORMAT, "version": VERSION}
    lines = [
        f" {json.dumps(k)}: {_lines(v) if k == 'draws' and v else json.dumps(v)}" for k, v in (head | values).items()
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _lines(rows: list[list[float]]) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]"


def load(path: Path) -> Law:
    """The law in a file. `UserError` names what is missing, of another version or no number."""
    require(path.is_file(), f"{path}: no such law file; write one with fit RUNS --out DIR")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); write it again with fit") from error
    require(isinstance(values, dict) and values.pop("format", None) == FORMAT, f"{path} is no law file of fit")
    version = values.pop("version", None)
    require(version == VERSION, f"{path} is a law of version {version}; this program reads {VERSION}: fit it again")
    return _checked(path, values)


def _checked(path: Path, values: dict[str, Any]) -> Law:
    fields = {item.name: item for item in dataclasses.fields(Law)}
    for name in values:
        require(name in fields, f"{path}: unknown entry {name}{closest(name, fields)}")
    for name, item in fields.items():
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        require(name in values or not needed, f"{path}: no entry {name}; write it again with fit")
    require(values["form"] in FORMS, f"{path}: form {values['form']!r} is none of {', '.join(FORMS)}")
    theta = _numbers(path, "theta", values["theta"], (6,))
    require(theta[3] > 0 and theta[4] > 0, f"{path}: theta has an exponent that is not positive")
    draws = values.get("draws")
    draws = None if draws is None else _numbers(path, "draws", draws, (None, 6))
    residuals = tuple(_numbers(path, "residuals", values.get("residuals", ()), (None,)).tolist())
    require(isinstance(values["ranges"], dict), f"{path}: ranges is no table of N, D, C and loss")
    for name in RANGES:
        require(name in values["ranges"], f"{path}: ranges has no {name}; write it again with fit")
    ranges = {name: tuple(_numbers(path, f"ranges {name}", values["ranges"][name], (2,)).tolist()) for name in RANGES}
    require(_positive(values.get("flops", 6.0)), f"{path}: flops {values.get('flops')!r} is not a positive number")
    read = {"theta": tuple(theta.tolist()), "draws": draws, "residuals": residuals, "ranges": ranges}
    return Law(**(values | read | {"sensitivity": tuple(values.get("sensitivity", ()))}))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


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
def shipped() -> dict[str, Law]:
    """Our own laws by file name."""
    folder = Path(str(resources.files("chinchilla_jax.scaling") / "data"))
    return {path.name: load(path) for path in sorted(folder.glob("*.json"))}


def default() -> Law:
    """The law where a user names none: MassiveText, 2022, as reconstructed from the figure of Hoffmann et al."""
    return shipped()[DEFAULT]
