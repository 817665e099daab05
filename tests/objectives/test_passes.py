"""A pass under attack: when it is, which rows, and how far its tokens move."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import replace
from chinchilla_jax.objectives.dense import dense
from chinchilla_jax.objectives.passes import Pass, repeat, when
from tests.objectives import oracle
from tests.objectives.oracle import BATCH, FREE, KEY, RADIUS, L

TABLE = np.random.default_rng(2).standard_normal((oracle.V, 12)).astype(np.float32)
G = np.random.default_rng(3).standard_normal((4, L, 12)).astype(np.float32)


def made(step=0, scale=1.0, **attack) -> Pass:
    config = replace(oracle.config(oracle.TIED, method="pgd", **attack), {"model.embed_scale": scale})
    base, cfg = dense(config.model, config.objective), config.adversarial.settled()
    return Pass(base, config, cfg, {"embed": {"table": TABLE}}, BATCH, KEY, step, ())


def test_an_attack_in_every_step_is_nothing_to_decide():
    assert made().active is True
    assert [step for step in range(10) if made(step, start=0.25, every=3).active] == [3, 6, 9]


@pytest.mark.parametrize("fraction, n", [(0.1, 1), (0.25, 1), (0.5, 2), (0.74, 2), (1.0, 4)])
def test_the_first_rows_are_attacked(fraction, n):
    now = dataclasses.replace(made(fraction=fraction), hidden_BLD=G, slope_nLD=G[:n])
    part = now.rows(now.count())
    assert now.count() == n == len(part.batch.tokens) == len(part.hidden_BLD) == len(part.slope_nLD)
    np.testing.assert_array_equal(part.batch.tokens, BATCH.tokens[:n])
    for active in (False, True):
        hit = np.asarray(now.hit(active))[:, 0]
        assert hit.tolist() == [float(active)] * n + [0.0] * (4 - n)
        expected = BATCH.weights * np.where(hit, 0.7, 1.0)[:, None]
        np.testing.assert_allclose(now.weighted(active, 0.7).batch.weights, expected, rtol=1e-6)


def test_the_radius_is_in_what_the_model_reads():
    """The look-up is scaled by `embed_scale`; an absolute radius is not."""
    own = RADIUS * np.linalg.norm(TABLE, axis=1)[BATCH.tokens] * (BATCH.segments > 0)
    np.testing.assert_allclose(made(scale=3.0).size()[..., 0], 3 * own, rtol=1e-6)
    assert float(made(scale=3.0, unit="absolute").size()) == pytest.approx(RADIUS)


@pytest.mark.parametrize("norm", ["l2_token", "l2_sequence", "linf"])
def test_nothing_moves_out_of_the_ball_or_on_padding_and_control_pieces(norm):
    now = made(norm=norm, init="gaussian", steps=2)
    noise = np.asarray(now.noise(now.keys()[0]))
    delta = np.asarray(now.moved(now.inside(noise), G))
    assert noise[FREE[..., 0]].all() and not (noise * ~FREE).any() and not (delta * ~FREE).any()
    size = np.broadcast_to(now.size(), delta.shape)
    if norm == "linf":
        assert (np.abs(delta) <= size * (1 + 1e-6)).all()
    else:
        for place in oracle.places(BATCH, norm):
            assert np.linalg.norm(delta[place]) <= size[place].max() * (1 + 1e-5)
    assert len(made(examples=3).keys()) == 3


def test_what_is_not_due_is_not_computed():
    assert when(True, lambda: "yes", lambda: 1 / 0) == "yes"
    assert float(when(jnp.bool_(False), lambda: jnp.float32(1), lambda: jnp.float32(2))) == 2


@pytest.mark.parametrize("times", [0, 1, 4, 5, 9])
def test_few_steps_are_written_out_and_many_are_a_loop(times):
    double = lambda x: repeat(times, lambda y: 2 * y, x)  # noqa: E731
    assert float(double(jnp.float32(1))) == 2**times
    compiled = jax.jit(double).lower(jnp.float32(1)).as_text()
    assert ("while" in compiled) == (times > 4)
