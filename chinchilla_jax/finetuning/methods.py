"""A method of fine-tuning as three functions of trees: what trains, what stands still, and the two joined.

The tree that trains holds whole leaves of the model under their own paths, the leaves of adapters below
`adapters/PATH`, rows of tables below `rows`, and heads below `heads/NAME`. Joining moves no number: it works on arrays,
tracers and shapes alike.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from chinchilla_jax.config import ModelConfig, TuneConfig, require
from chinchilla_jax.finetuning import budget
from chinchilla_jax.finetuning.adapters import KINDS, STORED, Kind
from chinchilla_jax.finetuning.prompts import prefixed
from chinchilla_jax.finetuning.targets import Site, choose, is_matrix, site
from chinchilla_jax.finetuning.trees import flat, nest
from chinchilla_jax.model import stacks, transformer
from chinchilla_jax.model.adapted import Rows, prefix
from chinchilla_jax.model.weights import RANK, array
from chinchilla_jax.objectives.objective import Binding
from chinchilla_jax.optim.allocate import Schedule
from chinchilla_jax.optim.sparsity import Links
from chinchilla_jax.types import Batch

Tree = dict[str, Any]
OWN = ("adapters", "rows", "heads")  # what no pretrained model has


class Method(NamedTuple):
    """`trains`: regular expression of the paths that train whole; `kind`: of its adapters; and its default rates.

    `schedule(tune, matrices, steps)`: the budget that it gives its ranks; `penalty(adapters)`: what comes to the loss,
    times `TuneConfig.orthogonality`.
    """

    trains: str = r"(?!)"
    kind: Kind | None = None
    peak_lr: float = 1e-3
    decay: float = 0.0
    schedule: Callable[..., Schedule] | None = None
    penalty: Callable[..., Any] | None = None


METHODS = {
    "full": Method(trains="", peak_lr=5e-5, decay=0.01),
    "head": Method(),
    "top": Method(trains=r"^(top/|norm/)", peak_lr=5e-5, decay=0.01),
    "lora": Method(kind=KINDS["lora"], peak_lr=3e-4),
    "rslora": Method(kind=KINDS["rslora"], peak_lr=1e-4),
    "dora": Method(kind=KINDS["dora"], peak_lr=3e-4),
    "adalora": Method(kind=KINDS["adalora"], schedule=budget.schedule, penalty=budget.orthogonality),
    "ia3": Method(kind=KINDS["ia3"], peak_lr=5e-3),
    "houlsby": Method(kind=KINDS["houlsby"]),
    "prompt": Method(kind=KINDS["prompt"], peak_lr=2e-2),
    "norms": Method(trains=r"/scale$"),
    "biases": Method(trains=r"(/|_)bias$"),
}
TABLES = ("embed", "unembed")


def defaults(method: str) -> dict[str, float]:
    """Settings of the optimizer that suit a method, for who has chosen none."""
    row = METHODS[method]
    return {"optimizer.peak_lr": row.peak_lr, "optimizer.weight_decay": row.decay}


@dataclass(frozen=True)
class Recipe:
    """A method for a model. `cfg` is the model that is tuned, `heads` the shapes of leaves by `NAME/leaf`."""

    cfg: ModelConfig
    tune: TuneConfig
    heads: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self):
        names = list(self.shapes)
        whole = [name for name in names if re.search(self.method.trains, name)]
        require(
            bool(whole or self.method.kind or self.heads),
            f"--tune.method {self.tune.method} finds nothing to train in this model; choose another, such as norms",
        )
        self.check_tables()

    @property
    def method(self) -> Method:
        """The row of the table."""
        return METHODS[self.tune.method]

    @functools.cached_property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The tuned model's own leaves by name, in the stacks that the method wants."""
        return flat(jax.eval_shape(self.prepare, transformer.abstract(self.cfg)))

    @functools.cached_property
    def sites(self) -> list[Site]:
        """The matrices with an adapter."""
        kind = self.method.kind
        return choose(self.tune.targets or kind.targets, list(self.shapes)) if kind else []

    def check_tables(self) -> None:
        """Refuse an adapter where it cannot stand; on a table that is input and output at once it would change both."""
        kind = self.method.kind
        for here in (here for here in self.sites if here.table):
            require(
                kind.tables != "none",
                f"--tune.targets {self.tune.targets}: {self.tune.method} knows no tables; leave {here.name} out",
            )
            require(
                kind.tables == "any" or not self.cfg.tied,
                "the model's input and output table are one, and an adapter would change both; set --tune.untie true, "
                "or choose other --tune.targets",
            )
        largest = max(self.tune.rows, default=-1)
        require(largest < self.cfg.vocab_size, f"--tune.rows: {largest} is beyond the {self.cfg.vocab_size} pieces")

    def prepare(self, base: Tree) -> Tree:
        """The base model in the shape of the tuned one: an output table of its own, the top layers apart."""
        if not self.cfg.tied and "unembed" not in base:
            base = {**base, "unembed": base["embed"]}
        if self.tune.method == "top":
            require(
                self.tune.top <= self.cfg.layers, f"--tune.top {self.tune.top}: the model has {self.cfg.layers} layers"
            )
            base = stacks.divided(base, self.tune.top)
        return base

    def trains(self, name: str) -> bool:
        """Whether a leaf of the model trains whole."""
        return bool(re.search(self.method.trains, name))

    @property
    def rows(self) -> list[str]:
        """The tables some of whose rows train beside the method; one that trains whole has no need of it."""
        names = [f"{name}/table" for name in TABLES if f"{name}/table" in self.shapes]
        return [name for name in names if self.tune.rows and not self.trains(name)]

    def freeze(self, base: Tree) -> Tree:
        """What stands still of a base model, which a trained tree is joined with."""
        store, _ = STORED[self.tune.weights]
        leaves = {name: leaf for name, leaf in flat(self.prepare(base)).items() if not self.trains(name)}
        return nest({name: store(leaf, site(name)) if is_matrix(name) else leaf for name, leaf in leaves.items()})

    def start(self, key: jax.Array, base: Tree) -> Tree:
        """What trains, before the first step: without an effect on the base model, heads apart."""
        trained = {name: leaf for name, leaf in flat(self.prepare(base)).items() if self.trains(name)}
        frozen = flat(self.freeze(base))
        for number, here in enumerate(self.sites):
            kernel = array(frozen[here.name])
            shapes = self.outline(here, kernel.shape)
            made = self.method.kind.start(self.tune, jax.random.fold_in(key, number), kernel, shapes, here)
            trained |= {f"adapters/{here.name}/{leaf}": value for leaf, value in made.items()}
        for name in self.rows:
            trained[f"rows/{name}"] = self.first_rows(array(frozen[name]))
        return nest(trained | first_heads(key, self.cfg, self.heads))

    def first_rows(self, table_VD: jax.Array) -> jax.Array:
        """What is added to the rows of new pieces at the start: it takes them to the mean of the table."""
        rows_nD = table_VD[jnp.asarray(self.tune.rows)].astype(jnp.float32)
        mean_D = table_VD.astype(jnp.float32).mean(0)
        return mean_D - rows_nD if self.tune.rows_start == "mean" else jnp.zeros_like(rows_nD)

    def outline(self, site: Site, of: tuple) -> dict[str, tuple]:
        """Shapes of the leaves of an adapter, or their logical axes where `of` holds those of the matrix."""
        rank = RANK if isinstance(of[-1], str) else self.tune.ranks(self.cfg.d_model)[0]
        return self.method.kind.outline(self.tune, site, of, rank)

    def join(self, trained: Tree, frozen: Tree) -> Tree:
        """A whole model's parameters, in which adapted matrices are nodes."""
        own = {name: trained[name] for name in OWN if name in trained}
        leaves = flat(frozen) | flat({name: part for name, part in trained.items() if name not in OWN})
        for name in self.rows:
            leaves[name] = Rows(leaves[name], below(own["rows"], name), self.tune.rows)
        scale, kind = self.tune.scale(self.cfg.d_model), self.method.kind
        for here in self.sites:
            parts = below(own["adapters"], here.name)
            leaves[here.name] = kind.wrap(leaves[here.name], parts, self.tune, scale, here)
            bias = re.sub(r"/kernel$", "/bias", here.name)
            if kind.bias and bias in leaves.keys() - {here.name}:
                leaves[bias] = kind.bias(leaves[bias], parts, here)
        return nest(leaves) | ({"heads": own["heads"]} if "heads" in own else {})

    needs_base = True

    @property
    def plain(self) -> bool:
        """Whether the whole parameters are arrays in the shape of any pretrained model."""
        return self.tune.whole and not self.heads

    def abstract_base(self) -> Tree:
        """Shapes of the model that tuning starts from."""
        return transformer.abstract(self.cfg)

    def binding(self, frozen: Tree, axes: Tree) -> Binding:
        """How an objective sees the whole model; `axes` are those of what trains."""
        alone = not self.rows and (self.method.kind or KINDS["lora"]).tables != "any"  # no document differs
        whole = alone and not any(map(self.trains, self.shapes))
        base = (lambda frozen: frozen) if whole else None
        return Binding(frozen, self.join, axes, base, self.penalty if self.method.penalty else None)

    def fed(self, batch: Batch) -> Batch:
        """A batch as the model takes it: with the ids of a soft prompt before every document, if there is one."""
        table = self.abstract_whole_table
        return prefixed(batch, prefix(table)) if prefix(table) else batch

    @functools.cached_property
    def abstract_whole_table(self) -> Any:
        """Shapes of the input table with whatever the method adds to it."""
        base = self.abstract_base()
        trained = jax.eval_shape(self.start, jax.random.key(0), base)
        return self.join(trained, jax.eval_shape(self.freeze, base))["embed"]["table"]

    def penalty(self, trained: Tree) -> jax.Array:
        """What the method adds to the loss of a token."""
        adapters = [(here, below(trained["adapters"], here.name)) for here in self.sites]
        return self.tune.orthogonality * self.method.penalty(adapters)

    def around(self, links: Links, steps: int) -> Links:
        """What the method makes of the optimizer's links, in a run of so many steps."""
        schedule = self.schedule(steps)
        return links if schedule is None else budget.links(self.tune, schedule, links)

    def schedule(self, steps: int) -> Schedule | None:
        """The budget of a run of so many steps, if the method has one."""
        if self.method.schedule is None:
            return None
        layers = sum(self.shapes[here.name].shape[0] for here in self.sites)
        return self.method.schedule(self.tune, layers, steps)

    def axes(self) -> tuple[Tree, Tree]:
        """Logical axes of what trains and of what stands still."""
        model = flat(transformer.logical_axes(self.cfg))
        axes = {name: model[re.sub(r"^top/", "blocks/", name)] for name in self.shapes}
        trained = {name: axes[name] for name in axes if self.trains(name)}
        for here in self.sites:
            for leaf, own in self.outline(here, axes[here.name]).items():
                trained[f"adapters/{here.name}/{leaf}"] = own
        trained |= {f"rows/{name}": (RANK, "embed") for name in self.rows}
        trained |= head_axes(self.heads)
        _, stored = STORED[self.tune.weights]
        frozen = {
            name: stored(axes[name], shape.shape, site(name)) if is_matrix(name) else axes[name]
            for name, shape in self.shapes.items()
            if not self.trains(name)
        }
        return nest(trained), nest(frozen)


@dataclass(frozen=True)
class Scratch:
    """Pretraining, or a task from nothing: everything trains, from fresh parameters, and nothing stands still."""

    cfg: ModelConfig
    heads: dict[str, tuple[int, ...]] = field(default_factory=dict)
    needs_base = False

    @property
    def plain(self) -> bool:
        """Whether the whole parameters are arrays in the shape of any pretrained model."""
        return not self.heads

    def abstract_base(self) -> Tree:
        """Nothing."""
        return {}

    def binding(self, frozen: Tree, axes: Tree) -> Binding:
        """None: the objective sees the parameters themselves."""
        return Binding(axes=axes)

    def fed(self, batch: Batch) -> Batch:
        """A batch as it is."""
        return batch

    def around(self, links: Links, steps: int) -> Links:
        """The optimizer's links as they are."""
        return links

    def schedule(self, steps: int) -> None:
        """No budget."""

    def start(self, key: jax.Array, base: Tree) -> Tree:
        """Fresh parameters."""
        return transformer.init(key, self.cfg) | nest(first_heads(key, self.cfg, self.heads))

    def freeze(self, base: Tree) -> Tree:
        """Nothing."""
        return {}

    def join(self, trained: Tree, frozen: Tree) -> Tree:
        """The parameters."""
        return trained

    def axes(self) -> tuple[Tree, Tree]:
        """Logical axes of the parameters and of nothing."""
        return transformer.logical_axes(self.cfg) | nest(head_axes(self.heads)), {}


def first_heads(key: jax.Array, cfg: ModelConfig, heads: dict[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    """Leaves of the heads by path, before the first step: biases at 0."""
    keys = (jax.random.fold_in(jax.random.fold_in(key, number), 1) for number in range(len(heads)))
    stds = (0.0 if name.endswith("bias") else cfg.init_std for name in heads)
    return {
        f"heads/{name}": std * jax.random.normal(own, shape, jnp.float32)
        for own, std, (name, shape) in zip(keys, stds, heads.items())
    }


def head_axes(heads: dict[str, tuple[int, ...]]) -> dict[str, tuple]:
    """Logical axes of the heads by path."""
    return {
        f"heads/{name}": (*[None] * (len(shape) - 1), "embed" if len(shape) > 1 else None)
        for name, shape in heads.items()
    }


def recipe(cfg: ModelConfig, tune: TuneConfig, heads: dict[str, tuple[int, ...]] | None = None) -> Recipe | Scratch:
    """What a config trains; `heads` are the shapes of a task's own leaves by `NAME/leaf`."""
    return Scratch(cfg, heads or {}) if tune.method == "off" else Recipe(cfg, tune, heads or {})


def below(tree: Tree, name: str) -> Any:
    """The part of a tree at a path."""
    for part in name.split("/"):
        tree = tree[part]
    return tree
