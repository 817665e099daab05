"""FreeLB, R3F and SMART on a label head, against their formulas in float64 over the plain twin of the model."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import AdversarialConfig, Config, OptimizerConfig, TaskConfig, TrainConfig
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.objectives.labels import labels
from tests import tiny
from tests.model import twin

L, NAMES = 12, ("bad", "good", "so-so")
CFG = dataclasses.replace(tiny.MODERN, scan_unroll=2)
# Where weights are most of what is computed: attention's products have none, which an ascent saves nothing of.
WIDE = dataclasses.replace(CFG, d_model=128, kv_heads=4, head_dim=32, d_ff=512)
KEY, RADIUS, WEIGHT, PROXIMITY = jax.random.key(3), 0.3, 0.7, 0.5
SETTINGS = {
    "freelb": {"steps": 2, "weight": WEIGHT},
    "r3f": {"weight": WEIGHT},
    "smart": {"weight": WEIGHT, "proximity": PROXIMITY},
}


def records():
    """Five records in three rows; the last token of each predicts its label."""
    batch = tiny.packed([[5, 7], [6, 4], [9]], L, CFG.vocab_size)
    last = (batch.segments > 0) & (np.diff(batch.segments, axis=1, append=0) != 0)
    return dataclasses.replace(batch, weights=last.astype(np.float32), targets=batch.targets % len(NAMES) * last)


def parameters(seed: int):
    """A model with a head; rows of its table are of one length, so that a radius means the same in every unit."""
    params = tiny.spiced(CFG, seed, scale=0.1)
    table, draw = params["embed"]["table"], np.random.default_rng(seed)
    params["embed"]["table"] = table / jnp.linalg.norm(table, axis=1, keepdims=True)
    kernel = jnp.asarray(0.5 * draw.standard_normal((len(NAMES), CFG.d_model)), jnp.float32)
    return params | {"heads": {"labels": {"kernel": kernel}}}


BATCH = records()
PARAMS, BEFORE = parameters(0), parameters(1)
FREE = ((BATCH.segments > 0) & (BATCH.tokens > 3))[..., None]  # of padding and control pieces


def objective(method: str, radius: float = RADIUS, cfg=CFG, **settings):
    attack = {} if method == "off" else {"radius": radius, "start": 0.0, "fraction": 1.0, "special": (0, 1, 2, 3)}
    config = Config(
        model=cfg,
        optimizer=OptimizerConfig(warmup_steps=0),
        train=TrainConfig(steps=10, seq_len=L, batch_size=len(BATCH.tokens)),
        task=TaskConfig(kind="labels", labels=NAMES),
        adversarial=AdversarialConfig(method=method, **attack, **settings),
    )
    return objectives.build(config, make=labels)


# The formulas, in float64


def log_p(params, delta_BLD):
    """Log-probabilities of labels, (B, L, C)."""
    return jax.nn.log_softmax(twin.forward(params, BATCH, CFG, delta_BLD) @ params["heads"]["labels"]["kernel"].T)


def entropy(params, delta_BLD=0.0):
    gold_BL = jnp.take_along_axis(log_p(params, delta_BLD), BATCH.targets[..., None], -1)[..., 0]
    return -(BATCH.weights * gold_BL).sum()


def apart(one_BLC, other_BLC):
    """The symmetric divergence of two predictions."""
    return (BATCH.weights[..., None] * (jnp.exp(one_BLC) - jnp.exp(other_BLC)) * (one_BLC - other_BLC)).sum()


def noise():
    """U(-1, 1) radius / sqrt(D) for every number of a token, drawn by the documented key."""
    key = jax.random.split(jax.random.fold_in(KEY, 1), 1)[0]
    draw = np.asarray(jax.random.uniform(key, (*BATCH.tokens.shape, CFG.d_model), jnp.float32, minval=-1.0), "f8")
    return RADIUS * draw / np.sqrt(CFG.d_model) * FREE


def climbed(loss, delta):
    """One projected step of the length of the radius."""
    g = np.asarray(jax.jit(jax.grad(loss))(delta)) * FREE
    delta = delta + RADIUS * g / np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), 1e-30)
    return delta * np.minimum(1, RADIUS / np.maximum(np.linalg.norm(delta, axis=-1, keepdims=True), 1e-30))


def formula(method: str, params, before):
    """The whole loss as a function of the parameters; the points of the ascent do not move with them."""
    start = noise()
    if method == "freelb":
        points = [start, climbed(partial(entropy, params), start)]
        return lambda p: WEIGHT / 2 * sum(entropy(p, delta) for delta in points)
    if method == "r3f":
        return lambda p: entropy(p) + WEIGHT * apart(log_p(p, 0.0), log_p(held(p), start))
    clean, earlier = log_p(params, 0.0), log_p(before, 0.0)
    delta = climbed(lambda delta: apart(clean, log_p(params, delta)), start)
    return lambda p: (
        entropy(p) + WEIGHT * apart(log_p(p, 0.0), log_p(p, delta)) + PROXIMITY * apart(log_p(p, 0.0), earlier)
    )


def held(params):
    """The noisy branch of R3F looks up in a table that does not learn from it."""
    return params | {"embed": jax.lax.stop_gradient(params["embed"])}


@pytest.mark.parametrize("method", SETTINGS)
def test_gradients_are_the_formula_s(method):
    made = objective(method, init="uniform", **SETTINGS[method])
    carry = {"before": BEFORE} if method == "smart" else made.init(PARAMS)
    grads, sums, _ = tiny.jit(made.gradients)(PARAMS, BATCH, KEY, 0, carry)
    with jax.enable_x64(True):
        exact, before = (jax.tree.map(lambda x: jnp.asarray(x, "float64"), tree) for tree in (PARAMS, BEFORE))
        expected = jax.jit(jax.grad(formula(method, exact, before)))(exact)
        assert float(sums.loss) == pytest.approx(
            float(entropy(exact, noise() if method == "freelb" else 0.0)), rel=1e-5
        )
    assert tiny.worst(grads, expected, floor=0.1) < 1e-5
    assert float(sums.weight) == 5 == float(sums.others["loss_attacked"].weight)


@pytest.mark.parametrize("method, bar", [("freelb", 2.05), ("r3f", 2.05), ("smart", 3.1)])
def test_radius_0_is_plain_and_what_an_attack_costs(method, bar):
    def lowered(*of, **settings):
        made = objective(*of, cfg=WIDE, **settings)
        return jax.jit(made.gradients).lower(params, BATCH, KEY, 0, jax.eval_shape(made.init, params))

    kernel = jax.ShapeDtypeStruct((len(NAMES), WIDE.d_model), "float32")
    params = transformer.abstract(WIDE) | {"heads": {"labels": {"kernel": kernel}}}

    plain, attacked = lowered("off"), lowered(method, **SETTINGS[method])
    still = SETTINGS[method] | ({"proximity": 0.0} if method == "smart" else {})  # which is a term of its own
    assert lowered(method, 0.0, **still).as_text() == plain.as_text()
    cost = [one.compile().cost_analysis()["flops"] for one in (plain, attacked)]
    assert 1.9 < cost[1] / cost[0] <= bar
