"""Which matrices get an adapter, by the names that the field gives them."""

import re
from typing import NamedTuple

from chinchilla_jax.config import require
from chinchilla_jax.model.stacks import NAMES

SHORT = {
    "q": "attention/query", "k": "attention/key", "v": "attention/value", "o": "attention/out", "out": "attention/out",
    "gate": "mlp/gate", "up": "mlp/up", "down": "mlp/down",
}  # fmt: skip
KNOWN = SHORT | {f"{name}_proj": path for name, path in SHORT.items()}
LINEAR = tuple(dict.fromkeys(SHORT.values()))


class Site(NamedTuple):
    """A matrix with an adapter: its name, and how many of its dimensions are layers and are contracted."""

    name: str
    lead: int
    contract: int

    @property
    def table(self) -> bool:
        """Whether it is a table (V, D), whose columns are the inputs of a prediction."""
        return self.name.endswith("/table")

    @property
    def inputs(self) -> range:
        """The dimensions of the inputs; a table's are its columns."""
        return range(1, 2) if self.table else range(self.lead, self.lead + self.contract)

    def parts(self, of: tuple) -> tuple[tuple, tuple, tuple]:
        """What lies over the layers, the inputs and the outputs, of a shape or of logical axes."""
        return of[: self.lead], of[self.lead : self.lead + self.contract], of[self.lead + self.contract :]


def is_matrix(name: str) -> bool:
    """Whether a parameter is a matrix, of the blocks or a table."""
    return name.endswith(("/kernel", "/table"))


def site(name: str) -> Site:
    """The site of a parameter: only the projection out of attention contracts two dimensions, heads and their width."""
    return Site(name, int(name.split("/")[0] in NAMES), 2 if name.endswith("/out/kernel") else 1)


def choose(rule: str, names: list[str]) -> list[Site]:
    """The matrices among `names` that `rule` means; a rule that finds none is a `UserError`.

    `all-linear` is every projection of the blocks; a list of names such as `q,v` or `q_proj,v_proj` these; anything
    else is a regular expression that is searched for in the paths of projections and tables.
    """
    matrices = [name for name in names if is_matrix(name)]
    words = [word.strip() for word in rule.split(",")]
    if rule == "all-linear":
        found = [name for name in matrices if any(f"/{path}/" in name for path in LINEAR)]
    elif all(word in KNOWN for word in words):
        for word in words:
            require(
                any(f"/{KNOWN[word]}/" in name for name in matrices),
                f"--tune.targets {rule}: the model has no {KNOWN[word]}; it has {_there(matrices)}",
            )
        found = [name for name in matrices if any(f"/{KNOWN[word]}/" in name for word in words)]
    else:
        found = [name for name in matrices if re.search(rule, name)]
    require(
        bool(found),
        f"--tune.targets {rule!r} matches no matrix; give all-linear, names of {', '.join(SHORT)}, or a regular "
        f"expression that finds one of {_there(matrices)}",
    )
    return [site(name) for name in found]


def _there(matrices: list[str]) -> str:
    return ", ".join(name.rpartition("/")[0] for name in matrices)
