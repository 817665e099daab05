"""Every method against its formula, written out naively over the plain-jnp twin of the model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import AdversarialConfig, Config, ObjectiveConfig, OptimizerConfig, TrainConfig, UserError
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.objectives import dense as dense_objective
from chinchilla_jax.training.program import Program
from chinchilla_jax.training.step import accumulate
from tests import runs, tiny
from tests.model import twin

L, V, SPECIAL = 13, 61, (0, 1, 2, 3)
BATCH = tiny.packed([[6, 7], [13], [5, 4, 2], [9, 4]], L, V)
KEY, RADIUS, WEIGHT = jax.random.key(5), 0.6, 0.7
STEPS = 10


def config(cfg=tiny.CHINCHILLA, rows: int = 4, **settings) -> Config:
    return Config(
        model=cfg,
        objective=ObjectiveConfig(tile_tokens=20),
        optimizer=OptimizerConfig(warmup_steps=0),
        train=TrainConfig(steps=STEPS, seq_len=L, batch_size=rows),
        adversarial=AdversarialConfig(**{"radius": RADIUS, "start": 0.0, "weight": WEIGHT, "fraction": 0.5} | settings),
    )


def gradients(config: Config, params, batch=BATCH, step=0, carry=(), key=KEY, parts=1):
    made = tiny.jit(accumulate(objectives.build(config), parts))
    return made(params, batch, key, step, carry)


# The reference, in numpy and plain jnp


def first(batch, n):
    return jax.tree.map(lambda x: x[:n], batch)


def mask(batch):
    return ((batch.segments > 0) & ~np.isin(batch.tokens, SPECIAL)).astype(np.float32)[..., None]


def unit(g, batch, norm):
    """The longest step of the unit ball, document by document."""
    g = np.array(g * mask(batch), np.float64)
    if norm == "linf":
        return np.sign(g)
    for b, row in enumerate(batch.segments):
        for s in range(1, row.max() + 1):
            places = [np.flatnonzero(row == s)] if norm == "l2_sequence" else np.flatnonzero(row == s)
            for place in places:
                length = np.linalg.norm(g[b, place])
                g[b, place] = g[b, place] / length if length else 0
    return g


def size(params):
    return RADIUS * np.linalg.norm(np.asarray(params["embed"]["table"]), axis=1).mean()


@functools.cache
def slope(cfg, rows):
    """d(sum of losses)/d(delta) of the first rows."""
    return tiny.jit(jax.grad(lambda delta, params: twin.loss(params, first(BATCH, rows), cfg, delta)))


def drawn(params, cfg, rows):
    """The noise of the one example: U(-1, 1) size / sqrt(D), drawn by the documented key."""
    key = jax.random.split(jax.random.fold_in(KEY, 1), 1)[0]
    noise = np.asarray(jax.random.uniform(key, (rows, L, cfg.d_model), minval=-1.0))
    return noise * size(params) / np.sqrt(cfg.d_model) * mask(first(BATCH, rows))


def log_p(params, batch, cfg, delta=0.0):
    return jax.nn.log_softmax(twin.logits(params, twin.forward(params, batch, cfg, delta), cfg))


def kl(logp, logq, weights):
    return (weights[..., None] * jnp.exp(logp) * (logp - logq)).sum()


def reference(cfg, params, loss, cost_of_rows):
    """Gradients of loss(params) and the cross-entropies that the metrics show."""
    return tiny.jit(jax.grad(loss))(params), [float(tiny.jit(one)(params)) for one in cost_of_rows]


def check(settings, params, cfg, expected, shown, clean=None):
    grads, sums, carry = gradients(config(cfg, **settings), params)
    assert carry == () and tiny.worst(grads, expected, floor=1e-2) < 3e-5
    plain = float(twin.loss(params, BATCH, cfg)) if clean is None else clean
    assert float(sums.loss) == pytest.approx(plain, rel=1e-5) and float(sums.weight) == BATCH.weights.sum()
    other = sums.others["attacked"]
    assert float(other.loss) == pytest.approx(shown, rel=1e-5)


@pytest.mark.parametrize("norm", ["l2_token", "l2_sequence", "linf"])
def test_fgm(norm):
    """CE(e) + w CE(e + size * g/||g||) of Miyato et al. 2017, as two naive passes."""
    cfg, params = tiny.CHINCHILLA, tiny.spiced(tiny.CHINCHILLA)
    delta = size(params) * unit(slope(cfg, 2)(jnp.zeros((2, L, cfg.d_model)), params), first(BATCH, 2), norm)

    def attacked(params):
        return twin.loss(params, first(BATCH, 2), cfg, delta)

    expected, (shown,) = reference(cfg, params, lambda p: twin.loss(p, BATCH, cfg) + WEIGHT * attacked(p), [attacked])
    check({"method": "fgm", "norm": norm}, params, cfg, expected, shown)


@pytest.mark.parametrize("kind", ["kl", "sym_kl"])
def test_fgm_with_a_divergence_from_the_clean_prediction(kind):
    cfg, params = tiny.MODERN, tiny.spiced(tiny.MODERN)
    part = first(BATCH, 4)
    delta = size(params) * unit(slope(cfg, 4)(jnp.zeros((4, L, cfg.d_model)), params), part, "l2_token")

    def loss(p):
        clean, there = jax.lax.stop_gradient(log_p(p, part, cfg)), log_p(p, part, cfg, delta)
        apart = kl(clean, there, part.weights) + (kl(there, clean, part.weights) if kind == "sym_kl" else 0)
        return twin.loss(p, BATCH, cfg) + WEIGHT * apart

    expected, (shown,) = reference(cfg, params, loss, [lambda p: twin.loss(p, part, cfg, delta)])
    check({"method": "fgm", "loss": kind, "fraction": 1.0}, params, cfg, expected, shown)


@pytest.mark.parametrize("init", ["zeros", "uniform"])
def test_pgd(init):
    """delta <- project(delta + 2/K size g/||g||), K = 3; only the last point trains, in place of the clean rows."""
    cfg, params = tiny.CHINCHILLA, tiny.spiced(tiny.CHINCHILLA)
    part, radius = first(BATCH, 2), size(params)
    delta = start = drawn(params, cfg, 2) if init == "uniform" else np.zeros((2, L, cfg.d_model))
    for _ in range(3):
        delta = delta + 2 / 3 * radius * unit(slope(cfg, 2)(delta, params), part, "l2_token")
        delta = delta * np.minimum(1, radius / np.maximum(np.linalg.norm(delta, axis=-1, keepdims=True), 1e-30))
    rest = jax.tree.map(lambda x: x[2:], BATCH)

    def loss(p):
        return twin.loss(p, rest, cfg) + WEIGHT * twin.loss(p, part, cfg, delta)

    shown = [
        lambda p: twin.loss(p, part, cfg, delta),
        lambda p: twin.loss(p, rest, cfg) + twin.loss(p, part, cfg, start),
    ]
    expected, (shown, clean) = reference(cfg, params, loss, shown)
    check({"method": "pgd", "init": init}, params, cfg, expected, shown, clean)


def test_freelb():
    """Zhu et al. 2020 with K = 3: the gradient is the mean over the K points, the last step moves nothing."""
    cfg, params = tiny.MODERN, tiny.spiced(tiny.MODERN)
    part, radius, points = first(BATCH, 2), size(params), [drawn(params, cfg, 2)]
    for _ in range(2):
        delta = points[-1] + 0.8 * radius * unit(slope(cfg, 2)(points[-1], params), part, "l2_token")
        points += [delta * np.minimum(1, radius / np.maximum(np.linalg.norm(delta, axis=-1, keepdims=True), 1e-30))]
    rest = jax.tree.map(lambda x: x[2:], BATCH)

    def loss(p):
        return twin.loss(p, rest, cfg) + WEIGHT * sum(twin.loss(p, part, cfg, d) for d in points) / 3

    seen = [lambda p: twin.loss(p, part, cfg, points[-1])]
    seen += [lambda p: twin.loss(p, rest, cfg) + twin.loss(p, part, cfg, points[0])]
    expected, (shown, clean) = reference(cfg, params, loss, seen)
    check({"method": "freelb", "steps": 3, "step_size": 0.8, "init": "uniform"}, params, cfg, expected, shown, clean)


def test_vat():
    """Miyato et al. 2018: the direction is the KL's own gradient at a small random probe; no label is used for it."""
    cfg, params = tiny.CHINCHILLA, tiny.spiced(tiny.CHINCHILLA)
    part, radius, key = first(BATCH, 2), size(params), jax.random.split(jax.random.fold_in(KEY, 1), 1)[0]

    @tiny.jit
    def ascent(delta):
        return jax.grad(lambda d: kl(log_p(params, part, cfg), log_p(params, part, cfg, d), part.weights))(delta)

    probe = unit(jax.random.normal(key, (2, L, cfg.d_model)), part, "l2_token")
    delta = radius * unit(ascent(0.5 * radius * probe), part, "l2_token")

    def loss(p):
        clean = jax.lax.stop_gradient(log_p(p, part, cfg))
        return twin.loss(p, BATCH, cfg) + WEIGHT * kl(clean, log_p(p, part, cfg, delta), part.weights)

    expected, (shown,) = reference(cfg, params, loss, [lambda p: twin.loss(p, part, cfg, delta)])
    grads, sums, _ = gradients(config(cfg, method="vat", probe=0.5), params)
    assert tiny.worst(grads, expected, floor=1e-1) < 1e-3, "the probe's gradient is a difference of near equals"
    assert float(sums.others["attacked"].loss) == pytest.approx(shown, rel=1e-3)


def test_r3f():
    """Aghajanyan et al. 2021: symmetric KL, both branches learn, the noisy one looks up in a detached table."""
    cfg, params = tiny.MODERN, tiny.spiced(tiny.MODERN)
    part, noise = first(BATCH, 2), drawn(params, cfg, 2)

    def loss(p):
        held = p | {"embed": jax.lax.stop_gradient(p["embed"])}
        clean, noisy = log_p(p, part, cfg), log_p(held, part, cfg, noise)
        apart = kl(clean, noisy, part.weights) + kl(noisy, clean, part.weights)
        return twin.loss(p, BATCH, cfg) + WEIGHT * apart

    expected, (shown,) = reference(cfg, params, loss, [lambda p: twin.loss(p, part, cfg, noise)])
    check({"method": "r3f"}, params, cfg, expected, shown)


def test_noise():
    """Jain et al. 2024: U(-1, 1) alpha / sqrt(n d), n being the length of the document and not of the padded row."""
    cfg, params = tiny.CHINCHILLA, tiny.spiced(tiny.CHINCHILLA)
    count = np.array([[(row == s).sum() for s in row] for row in BATCH.segments])[..., None]
    noise = drawn(params, cfg, 4) / np.sqrt(count)
    expected, (shown,) = reference(
        cfg, params, lambda p: twin.loss(p, BATCH, cfg, noise), [lambda p: twin.loss(p, BATCH, cfg, noise)]
    )
    settings = {"method": "noise", "norm": "l2_sequence", "fraction": 0.0, "weight": 1.0}
    check(settings, params, cfg, expected, shown, clean=shown)


def test_softmax_margin():
    cfg, params = tiny.CHINCHILLA, tiny.spiced(tiny.CHINCHILLA)

    def lowered(p):
        hidden, table = twin.forward(p, BATCH, cfg), p["embed"]["table"]
        length = jax.lax.stop_gradient(jnp.linalg.norm(table, axis=-1))[BATCH.targets]
        logits, hit = hidden @ table.T, np.arange(V) == BATCH.targets[..., None]
        gold = (logits * hit).sum(-1)
        low = jnp.where(gold > 0, RADIUS * length * jnp.linalg.norm(hidden, axis=-1), 0.0)
        low = low.at[2:].set(0.0)
        return BATCH.weights * (jax.nn.logsumexp(logits - hit * low[..., None], -1) - gold + low)

    expected, (shown,) = reference(cfg, params, lambda p: lowered(p).sum(), [lambda p: lowered(p)[:2].sum()])
    check({"method": "softmax_margin"}, params, cfg, expected, shown)


# What holds for all of them

ALL = [
    {"method": "fgm"},
    {"method": "fgm", "loss": "kl", "examples": 2, "init": "uniform"},
    {"method": "pgd", "examples": 2},
    {"method": "freelb"},
    {"method": "vat"},
    {"method": "r3f"},
    {"method": "noise"},
    {"method": "softmax_margin"},
]
NAMED = pytest.mark.parametrize("settings", ALL, ids=lambda s: "-".join(map(str, s.values())))


@NAMED
def test_a_radius_of_zero_is_the_plain_objective(settings):
    def text(**settings):
        made = jax.jit(objectives.build(config(tiny.MODERN, **settings)).gradients)
        return made.lower(tiny.spiced(tiny.MODERN), BATCH, KEY, 0, ()).as_text()

    assert text(**{**settings, "radius": 0.0}) == text(method="off") != text(**settings)


@NAMED
def test_steps_between_two_attacks_are_plain(settings):
    """start 0.2 of 10 steps and every 3rd: steps 2, 5 and 8 attack. The carry that a program holds is as it was."""
    params = tiny.spiced(tiny.MODERN)
    made = tiny.jit(objectives.build(config(tiny.MODERN, start=0.2, every=3, **settings)).gradients)
    plain, expected, _ = gradients(config(tiny.MODERN, method="off"), params)
    for step in (0, 4, 5):
        grads, sums, _ = made(params, BATCH, KEY, jnp.int32(step), ())
        attacked = float(sums.others["attacked"].weight) > 0
        assert attacked == (step == 5) == (tiny.worst(grads, plain, floor=1e-2) > 1e-4)
        assert attacked or float(sums.loss) == pytest.approx(float(expected.loss), rel=1e-6)


@pytest.mark.parametrize("settings", [{"method": "off"}, {"method": "fgm", "radius": 0.0}])
def test_off_leaves_the_compiled_program_as_it_is(settings, monkeypatch):
    def text():
        lowered = []
        monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self, *a: lowered.append(self.as_text()))
        Program(config(rows=8, **settings)).step(8)
        return lowered[0]

    ours = text()
    monkeypatch.setattr(objectives, "build", lambda c: dense_objective.dense(c.model, c.objective))
    assert ours == text() and "dot" in ours


@pytest.mark.parametrize(
    "settings",
    [{"method": "fgm"}, {"method": "fgm", "loss": "kl", "fraction": 1.0}, {"method": "pgd", "init": "zeros"},
     {"method": "freelb"}, {"method": "softmax_margin"}],
)  # fmt: skip
def test_microbatches_attack_the_rows_that_one_batch_would(settings):
    params = tiny.spiced(tiny.CHINCHILLA)
    whole, parts = (gradients(config(**settings), params, parts=parts)[:2] for parts in (1, 2))
    assert tiny.worst(parts, whole, floor=0.1) < 1e-5


def test_an_attack_does_not_leak_into_another_document():
    """The loss of document A has a gradient of exactly 0 with respect to what is added to document B."""
    for cfg in tiny.FAMILIES.values():
        params, only = tiny.spiced(cfg), dataclasses.replace(BATCH, weights=BATCH.weights * (BATCH.segments == 2))
        objective = objectives.build(config(cfg))
        delta = 0.1 * np.ones((4, L, cfg.d_model), np.float32)
        g = np.asarray(tiny.jit(jax.grad(lambda d: objective.loss(params, only, None, d)[0]))(delta))  # noqa: B023
        assert g[BATCH.segments == 2].any() and not g[BATCH.segments != 2].any()


def test_the_gradient_of_delta_is_the_difference_quotient():
    """Central differences of the twin in float64, along the gradient itself and along random directions."""
    for cfg in tiny.FAMILIES.values():
        params = tiny.spiced(cfg)
        objective = objectives.build(config(cfg))
        draw = np.random.default_rng(1)
        delta = 0.1 * draw.standard_normal((4, L, cfg.d_model)).astype(np.float32)
        g = np.asarray(tiny.jit(jax.grad(lambda d: objective.loss(params, BATCH, None, d)[0]))(delta), float)  # noqa: B023
        along = [g / np.linalg.norm(g), *draw.standard_normal((3, *delta.shape))]
        with jax.enable_x64(True):
            exact = jax.tree.map(lambda x: jnp.asarray(x, "float64"), params)
            loss = jax.jit(lambda d: twin.loss(exact, BATCH, cfg, d))  # noqa: B023
            h = 1e-5
            quotients = [float(loss(delta + h * a) - loss(delta - h * a)) / (2 * h) for a in along]
        found = [float((g * a).sum()) for a in along]
        np.testing.assert_allclose(found, quotients, rtol=1e-6, atol=2e-6 * np.linalg.norm(g))


def test_a_pass_over_the_attacked_rows_drops_what_the_clean_pass_dropped():
    """With a vanishing radius the attacked rows have the loss of the same rows in the clean pass."""
    cfg = dataclasses.replace(tiny.MODERN, dropout=0.4)
    params, only = tiny.spiced(cfg), dataclasses.replace(BATCH, weights=BATCH.weights * (np.arange(4) < 2)[:, None])
    _, sums, _ = gradients(config(cfg, method="fgm", radius=1e-7), params, only)
    assert float(sums.others["attacked"].loss) == pytest.approx(float(sums.loss), rel=1e-5)
    _, undropped, _ = gradients(config(method="off", cfg=tiny.MODERN), params, only)
    assert abs(float(sums.loss) - float(undropped.loss)) > 0.1


def test_in_bfloat16_the_perturbation_still_has_its_length():
    cfg = dataclasses.replace(tiny.MODERN, dtype="bfloat16")
    for method in ("fgm", "pgd", "vat"):
        _, found, _ = gradients(config(cfg, method=method, weight=1.0), tiny.spiced(cfg))
        _, exact, _ = gradients(config(tiny.MODERN, method=method, weight=1.0), tiny.spiced(cfg))
        a, b, clean = (float(x) for x in (found.others["attacked"].loss, exact.others["attacked"].loss, exact.loss))
        assert a == pytest.approx(b, rel=0.05) and np.isfinite(clean)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"method": "fmg"}, "fgm"),
        ({"method": "fgm", "radius": -0.1}, "radius -0.1 must not be negative"),
        ({"method": "pgd", "loss": "kl"}, "set --adversarial.loss"),
        ({"method": "noise", "steps": 3}, "use pgd"),
        ({"method": "freelb", "steps": 1}, "never attacks"),
        ({"method": "fgm", "examples": 2}, "to tell them apart"),
        ({"method": "pgd", "delayed": True}, "goes with --adversarial.method fgm"),
        ({"method": "fgm", "fraction": 1.5}, "must lie in [0, 1]"),
        ({"method": "fgm", "delayed": True, "fraction": 0.6}, "at most 0.5"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_mend(settings, said):
    with pytest.raises(UserError, match="--adversarial") as refused:
        AdversarialConfig(**settings)
    assert said in str(refused.value)


def test_the_command_refuses_with_78():
    for flags in ({"adversarial.method": "fmg"}, {"adversarial.radius": "-0.1"}):
        code, said = runs.call("pretrain", **flags)
        assert code == 78 and len(said.strip().splitlines()) == 1 and "adversarial." in said
