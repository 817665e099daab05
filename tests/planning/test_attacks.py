"""FLOPs of gradients against the plain ones', as XLA counts them."""

import functools

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
