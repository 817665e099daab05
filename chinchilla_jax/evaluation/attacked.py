"""A task under attack: what a tuned model still gets right, in the figures of the task's own kind.

The judge of the kind is asked as ever; the parameters that it is given have an input table whose rows are perturbed. A
record is a document of its own, so each is attacked for its own loss, and the worst point is kept for each.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.config import Config, require
from chinchilla_jax.evaluation import robustness
from chinchilla_jax.evaluation.attack import Attack, notes, shown
from chinchilla_jax.evaluation.tasks import Poll, Validator
from chinchilla_jax.evaluation.typos import corrupt
from chinchilla_jax.model.adapted import Shifted, prefix
from chinchilla_jax.objectives.objective import Binding
from chinchilla_jax.parallel import sharding
from chinchilla_jax.tasks.kinds.kind import Kind
from chinchilla_jax.tasks.records import Record
from chinchilla_jax.training.program import shardings_of

NAMES = ("rand", "fgm", *(f"pgd{count}" for count in robustness.STEPS))
Figure = tuple[float, float]  # a mean and its standard error


def check(kind: Kind, config: Config) -> None:
    """Refuse a kind that writes: its loss is not what is right, and nothing carries a gradient through its answers."""
    require(
        bool(kind.heads(config)),
        f"--attack with --task is for kinds with a head of their own, and {kind.name} has none; without --task it "
        "attacks the loss of every token of a store",
    )


@dataclass
class Attacked(Validator):
    """A validator whose inputs are perturbed by the attack `at` (name, radius), or not at all."""

    attack: Attack = field(default_factory=Attack)
    at: tuple[str, float] | None = None

    def __post_init__(self):
        config, kind = self.program.config, self.data.kind
        self.cfg = robustness.exact(config.model)
        loss = kind.objective(dataclasses.replace(config, model=self.cfg), Binding()).loss

        def total(params, batch, delta_BLD):
            return loss(params, batch, None, delta_BLD, priced=False)[0]

        self.aim = robustness.Aim(total, apart=True)
        super().__post_init__()

    def compiled(self, f: Callable) -> Callable:
        """f(params, batch, delta) and the loss, summed, on the mesh."""
        program = self.program
        rows = sharding.batch_sharding(program.mesh)
        shape = (self.rows, self.data.seq_len, self.cfg.d_model)
        delta = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows)

        def both(params, batch, delta_BLD):
            table = Shifted(params["embed"]["table"], delta_BLD / self.cfg.embed_scale)
            return f(params | {"embed": {"table": table}}, batch), self.aim.loss(params, batch, delta_BLD)

        where = shardings_of(program.abstract_whole), rows, rows
        jitted = jax.jit(both, in_shardings=where, out_shardings=sharding.replicated(program.mesh))
        with jax.set_mesh(program.mesh):
            run = jitted.lower(program.abstract_whole, program.abstract_batch(self.rows), delta).compile()
        return lambda params, batch, delta_BLD: run(params, batch, jax.device_put(delta_BLD, rows))

    def over(self, run: Callable, params: Any, poll: Poll, items=()) -> Iterator[tuple[Any, Any, Any]]:
        """The same as without an attack, of perturbed batches; `nats` and `weight` are those of all so far."""
        self.nats, self.weight = 0.0, 0.0
        for number, (held, batch) in enumerate(zip(self.held, self.batches)):
            placed = self.likelihood.placed(batch)
            out, loss = jax.tree.map(np.asarray, run(params, placed, self.delta(params, placed, number * self.rows)))
            self.nats, self.weight = self.nats + float(loss), self.weight + float(batch.weights.sum())
            poll()
            yield held, batch, out

    def delta(self, params: Any, batch: Any, first: int) -> jax.Array:
        """Where the attack gets to on the rows from number `first` on: (B, L, D)."""
        if self.at is None:
            return jnp.zeros((*batch.tokens.shape, self.cfg.d_model))
        name, radius = self.at
        special = *self.data.tokenizer.special, *prefix(params["embed"]["table"])
        key = jax.random.key(self.attack.seed)
        steps = [count for count in robustness.STEPS if name == f"pgd{count}"]
        with jax.set_mesh(self.program.mesh), jax.default_matmul_precision("highest"):
            keys = [jax.random.fold_in(key, number) for number in range(max(1, self.attack.restarts - 1))]
            points = [robustness.sphere(each, first, batch, self.cfg.d_model) for each in keys]
            unit_BL1, _ = robustness.units(params, batch, self.cfg, special)

            def move(*start):
                return robustness.ascend(params, *start, aim=self.aim, special=special)

            return robustness.attacked(move, batch, radius * unit_BL1, points, steps, self.attack.restarts)[name]

    def __call__(self, params: Any, poll: Poll = lambda: None) -> dict[str, Figure | float]:
        """The kind's figures under the attack; `right` is the share of predictions that are, with its standard error,
        which of one prediction alone is not-a-number."""
        figures, rows = self.judge(params, poll)
        right, n = np.mean([not self.data.kind.wrong(row) for row in rows]), len(rows)
        error = math.sqrt(right * (1 - right) / (n - 1)) if n > 1 else math.nan
        return {"loss": self.nats / self.weight, **figures, "right": (float(right), error)}


def measure(plain: Validator, attack: Attack, params: Any, say: Callable[[str], None], show: Callable[[str], None]):
    """Figures of `plain`'s records, clean, under every attack at every radius, and with typing mistakes at every rate.

    As many records as `attack.tokens` hold, spread evenly; `say` gets lines that stay, `show` the progress.
    """
    data, records = plain.data, plain.records
    every = -(-sum(map(len, plain.items)) // attack.tokens)
    judge = Attacked(plain.program, data, records[::every], plain.name, plain.tuned, attack)
    radii = tuple(dict.fromkeys(attack.radii))
    total = 1 + len(NAMES) * len(radii)
    say(f"attacking {len(judge.records):,} of {len(records):,} records at {len(radii)} radii")
    done = iter(range(1, total + 1))

    def at(*where) -> dict[str, Any]:
        judge.at = where or None
        found = judge(params)
        show(f"judged {next(done)} of {total} attacks")
        return found

    found = {"clean": at()} | {name: {rho: at(name, rho) for rho in radii} for name in NAMES}
    losses = {rho: [found[name][rho]["loss"] for name in NAMES] for rho in radii}
    judge.at, found["ordered"] = None, {rho: robustness.ordered(each) for rho, each in losses.items()}
    found["typo"] = {}
    for rate in (rate for rate in attack.typos if rate and hasattr(records[0], "mistyped")):
        judge.take(mistyped(records[::every], rate, attack.seed))
        found["typo"][rate] = judge(params)
    told = {"records": len(records[::every]), "restarts": attack.restarts, "seed": attack.seed}
    return found | told | {"notes": notes(found)}


def mistyped(records: Sequence[Record], rate: float, seed: int) -> list[Record]:
    """The records with typing mistakes in their texts, of questions in the question alone."""
    draw = np.random.default_rng([seed, round(rate * 1e9)])
    return [one.mistyped(lambda text: corrupt(text, rate, draw)[0]) for one in records]


def table(found: dict[str, Any], metric: str) -> list[str]:
    """The share that is right and, where that is another figure, the metric of the kind; by radius and by rate."""
    named = [("right", lambda each: shown(each["right"]))]
    if metric not in ("accuracy", "loss"):
        named.append((metric, lambda each: f"{each[metric]:.4f}"))
    lines = []
    for name, text in named:
        lines += [
            f"{name}, clean: {text(found['clean'])} over {found['records']:,} records",
            f"{'radius':>8} " + " ".join(f"{attack:>17}" for attack in NAMES),
        ]
        for rho in found["ordered"]:
            lines.append(f"{rho:>8g} " + " ".join(f"{text(found[attack][rho]):>17}" for attack in NAMES))
        lines += [
            f"{name} with {rate:g} of the characters mistyped: {text(each)}" for rate, each in found["typo"].items()
        ]
    return lines
