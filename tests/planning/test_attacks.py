"""FLOPs of gradients against the plain ones', as XLA counts them."""

import functools
import math

import jax
import pytest

from chinchilla_jax.config import (
    AdversarialConfig,
    Config,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
    replace,
)  # fmt: skip
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.planning.attacks import step_multiple
from tests import tiny

B, L, V = 32, 16, 256  # short windows: attention has no weights, so an ascent saves nothing of it
# One layer and one tile of the vocabulary, since XLA counts the body of a loop once; the head is a seventh of a step.
MODEL = ModelConfig(**tiny.PLAIN, layers=1, d_model=128, heads=4, head_dim=32, d_ff=512,
                    vocab_size=V, mlp="gelu")  # fmt: skip


def config(start: float = 0.0, rows: int = B, **attack) -> Config:
    return Config(
        model=MODEL,
        objective=ObjectiveConfig(tile_tokens=B * L),
        optimizer=OptimizerConfig(warmup_steps=0),
        train=TrainConfig(steps=100, seq_len=L, batch_size=rows),
        adversarial=AdversarialConfig(start=start, **attack),
    )


@functools.cache
def lowered(**attack) -> jax.stages.Lowered:
    objective = objectives.build(config(**attack))
    params = transformer.abstract(MODEL)
    batch = jax.eval_shape(lambda: tiny.packed([[L]] * B, L, V))
    carry, key = jax.eval_shape(objective.init, params), jax.random.key(0)
    step = jax.ShapeDtypeStruct((), "int32")
    return tiny.jit(objective.gradients).lower(params, batch, key, step, carry)


def flops(**attack) -> float:
    """As asked for; of VAT as compiled, which computes once what two of its passes have in common."""
    made = lowered(**attack)
    return (made.compile() if attack["method"] == "vat" else made).cost_analysis()["flops"]


PGD = {"method": "pgd", "steps": 3, "fraction": 1.0}


@pytest.mark.parametrize("attack", [{"method": "off"}, PGD], ids=["off", "pgd"])
def test_what_is_counted_is_what_is_run(attack):
    """Compiling takes nothing away from the gradients as they were asked for, and adds nothing."""
    assert lowered(**attack).compile().cost_analysis()["flops"] == pytest.approx(flops(**attack), rel=0.01)


@pytest.mark.parametrize(
    "bar, least, attack",
    [
        (1.13, 1.12, {"method": "fgm", "loss": "ce"}),
        (1.01, 0.99, {"method": "fgm", "fraction": 1 / 8, "delayed": True, "loss": "ce"}),
        (1.03, 1.02, {"method": "fgm", "delayed": True}),
        (1.01, 0.99, {"method": "softmax_margin"}),
        (1.01, 0.99, {"method": "noise"}),
        (2.02, 1.98, {"method": "fgm", "loss": "ce", "fraction": 1.0}),
        (2.02, 1.98, {"method": "freelb", "steps": 2, "fraction": 1.0}),
        (3.05, 2.95, PGD),
        (3.1, 2.6, {"method": "vat", "fraction": 1.0}),
        (1.13, 1.12, {"method": "fgm", "loss": "ce", "start": 0.1}),
    ],
    ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else "",
)
def test_what_a_method_costs(bar, least, attack):
    """Nothing costs less than it must: the count would have missed something. What a user is told is about that."""
    found = flops(**attack) / flops(method="off")
    assert least <= found <= bar
    assert step_multiple(config(**attack)) == pytest.approx(found, rel=0.03)


def products(jaxpr, which=min) -> float:
    """FLOPs of the matrix products of a jaxpr without loops; of a condition those of one branch."""
    total = 0.0
    for one in jaxpr.eqns:
        inner = [getattr(x, "jaxpr", x) for v in one.params.values() for x in (v if isinstance(v, tuple) else (v,))]
        inner = [x for x in inner if hasattr(x, "eqns")]
        if one.primitive.name == "dot_general":
            over = one.params["dimension_numbers"][0][0]
            total += 2 * one.outvars[0].aval.size * math.prod(one.invars[0].aval.shape[i] for i in over)
        elif inner:
            total += (which if one.primitive.name == "cond" else sum)(products(x, which) for x in inner)
    return total


def traced(made: Config):
    """The gradients of a config, of which nothing is compiled."""
    objective, params = objectives.build(made), transformer.abstract(MODEL)
    batch, step = jax.eval_shape(lambda: tiny.packed([[L]] * B, L, V)), jax.ShapeDtypeStruct((), "int32")
    carry = jax.eval_shape(objective.init, params)
    return jax.make_jaxpr(objective.gradients)(params, batch, jax.random.key(0), step, carry).jaxpr


FGM = {"method": "fgm", "loss": "ce"}
GRADIENT = {"corruption.share": 0.1, "corruption.copies": 0.5, "corruption.kind": "gradient"}


@pytest.mark.parametrize("attack, corrupted", [
    (FGM | {"proximity": 1.0}, {}), (FGM, {"corruption.share": 0.1, "corruption.copies": 1.0, "corruption.start": 0.5}),
])  # fmt: skip
def test_a_step_before_the_start_is_a_plain_one(attack, corrupted):
    """No second pull and no copies."""
    made = replace(config(0.5, **attack), corrupted)
    plain = products(traced(config(method="off")))
    assert products(traced(made)) == pytest.approx(plain, rel=0.02)
    whole = 2 * (step_multiple(made) - 1) + 1  # a run of which the second half costs more
    assert products(traced(made), max) / plain == pytest.approx(whole, rel=0.05)


def test_a_second_pull_beside_copies_by_gradient_is_counted():
    made = replace(config(method="off", proximity=1.0), GRADIENT)
    found = products(traced(made), max) / products(traced(config(method="off")))
    assert step_multiple(made) == pytest.approx(found, rel=0.05) and found > 2.4


@pytest.mark.parametrize("rows, mesh, attack, expected", [
    (32, 1, {}, 1.125), (12, 1, {}, 1 + 1 / 12), (4, 1, {}, 1.25), (16, 8, {}, 1.5), (16, 1, {"every": 2}, 1.0625),
    (32, 1, {"start": 0.6, "examples": 2, "init": "uniform"}, 1.1), (32, 1, {"radius": 0.0}, 1.0),
    (32, 1, {"method": "pgd", "steps": 3, "fraction": 0.5}, 2.0), (32, 1, {"delayed": True}, 1.0),
])  # fmt: skip
def test_what_a_user_is_told_of_the_cost(rows, mesh, attack, expected):
    """Rows are whole, one at least, and filled up to the devices."""
    told = step_multiple(
        replace(config(rows=rows, **{"method": "fgm", "loss": "ce", "fraction": 1 / 8} | attack), {"mesh.data": mesh})
    )
    assert told == pytest.approx(expected)
