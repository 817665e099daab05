"""Every method against its formula, written out naively over the plain-jnp twin of the model."""

import contextlib
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import (
    AdversarialConfig,
    Config,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
    replace,
    to_dict,
)
from chinchilla_jax.errors import UserError
from chinchilla_jax.objectives import build as objectives
from chinchilla_jax.objectives import dense as dense_objective
from chinchilla_jax.training.program import Program
from chinchilla_jax.training.resume import check_config
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


def size(params, rows=2):
    """RADIUS |e_t| of every token."""
    return RADIUS * np.linalg.norm(np.asarray(params["embed"]["table"])[BATCH.tokens[:rows]], axis=-1, keepdims=True)


def mean(x, batch):
    """Over every document, at each of its tokens."""
    x = np.array(x)
    for b, row in enumerate(batch.segments):
        for s in range(1, row.max() + 1):
            x[b, row == s] = x[b, row == s].mean()
    return x


@functools.cache
def slope(cfg, rows):
    """d(sum of losses)/d(delta) of the first rows."""
    return jax.grad(lambda delta, params: twin.loss(params, first(BATCH, rows), cfg, delta))


def drawn(params, cfg, rows):
    """The noise of the one example: U(-1, 1) size / sqrt(D), drawn by the documented key."""
    key = jax.random.split(jax.random.fold_in(KEY, 1), 1)[0]
    noise = np.asarray(jax.random.uniform(key, (rows, L, cfg.d_model), jnp.float32, minval=-1.0), np.float64)
    return noise * size(params, rows) / np.sqrt(cfg.d_model) * mask(first(BATCH, rows))


def log_p(params, batch, cfg, delta=0.0):
    return jax.nn.log_softmax(twin.logits(params, twin.forward(params, batch, cfg, delta), cfg))


def kl(logp, logq, weights):
    return (weights[..., None] * jnp.exp(logp) * (logp - logq)).sum()


def check(settings, params, cfg, formula):
    """`formula(params)` is, as a function of what trains, the whole loss, the attacked cross-entropy and the clean one.

    It is taken in float64, ascents included.
    """
    grads, sums, carry = gradients(config(cfg, **settings), params)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(x, "float64"), params)
        loss = formula(exact)
        expected, (shown, clean) = jax.grad(lambda p: (loss(p)[0], loss(p)[1:]), has_aux=True)(exact)
    assert carry == () and tiny.worst(grads, expected, floor=0.1) < 1e-5
    assert float(sums.loss) == pytest.approx(float(clean), rel=1e-6)
    assert float(sums.weight) == BATCH.weights.sum()
    assert float(sums.others["loss_attacked"].loss) == pytest.approx(float(shown), rel=1e-5)


def resolved(cfg):
    """Parameters whose ascents float32 resolves: divergences and slopes that are not the rounding of larger numbers."""
    return tiny.spiced(cfg, scale=0.1)


CFG, PARAMS = tiny.CHINCHILLA, tiny.spiced(tiny.CHINCHILLA)
PART, REST = first(BATCH, 2), jax.tree.map(lambda x: x[2:], BATCH)


@pytest.mark.parametrize("norm", ["l2_token", "l2_sequence"])
def test_fgm(norm):
    """CE(e) + w CE(e + size * g/||g||) of Miyato et al. 2017, as two naive passes."""

    def formula(params):
        radius = size(params) if norm == "l2_token" else mean(size(params), PART)
        delta = radius * unit(slope(CFG, 2)(jnp.zeros((2, L, CFG.d_model)), params), PART, norm)

        def loss(p):
            clean, attacked = twin.loss(p, BATCH, CFG), twin.loss(p, PART, CFG, delta)
            return clean + WEIGHT * attacked, attacked, clean

        return loss

    check({"method": "fgm", "norm": norm, "loss": "ce"}, resolved(CFG), CFG, formula)


def test_fgm_with_a_divergence_from_the_clean_prediction():
    def formula(params):
        delta = size(params) * unit(slope(CFG, 2)(jnp.zeros((2, L, CFG.d_model)), params), PART, "linf")

        def loss(p):
            clean, there = jax.lax.stop_gradient(log_p(p, PART, CFG)), log_p(p, PART, CFG, delta)
            whole = twin.loss(p, BATCH, CFG)
            return whole + WEIGHT * kl(clean, there, PART.weights), twin.loss(p, PART, CFG, delta), whole

        return loss

    check({"method": "fgm", "loss": "kl", "norm": "linf"}, resolved(CFG), CFG, formula)


def inside(delta, radius):
    """The nearest point of the ball of each token."""
    return delta * np.minimum(1, radius / np.maximum(np.linalg.norm(delta, axis=-1, keepdims=True), 1e-30))


def test_pgd():
    """delta <- project(delta + 2/K size g/||g||), K = 3; only the last point trains, in place of the clean rows."""

    def formula(params):
        radius, start = size(params), drawn(params, CFG, 2)
        delta = start
        for _ in range(3):
            delta = inside(delta + 2 / 3 * radius * unit(slope(CFG, 2)(delta, params), PART, "l2_token"), radius)

        def loss(p):
            rest, attacked = twin.loss(p, REST, CFG), twin.loss(p, PART, CFG, delta)
            return rest + WEIGHT * attacked, attacked, rest + twin.loss(p, PART, CFG, start)

        return loss

    check({"method": "pgd"}, resolved(CFG), CFG, formula)


def test_freelb():
    """Zhu et al. 2020 with K = 3: the gradient is the mean over the K points, the last step moves nothing."""

    def formula(params):
        radius, points = size(params), [drawn(params, CFG, 2)]
        for _ in range(2):
            step = 0.8 * radius * unit(slope(CFG, 2)(points[-1], params), PART, "l2_token")
            points.append(inside(points[-1] + step, radius))

        def loss(p):
            rest, losses = twin.loss(p, REST, CFG), [twin.loss(p, PART, CFG, d) for d in points]
            return rest + WEIGHT * sum(losses) / 3, losses[-1], rest + losses[0]

        return loss

    check({"method": "freelb", "steps": 3, "step_size": 0.8, "init": "uniform"}, resolved(CFG), CFG, formula)


def test_vat():
    """Miyato et al. 2018: the direction is the KL's own gradient at a small random probe; no label is used for it."""

    def formula(params):
        radius, key = size(params), jax.random.split(jax.random.fold_in(KEY, 1), 1)[0]

        @tiny.jit
        def ascent(delta):
            return jax.grad(lambda d: kl(log_p(params, PART, CFG), log_p(params, PART, CFG, d), PART.weights))(delta)

        probe = unit(jax.random.normal(key, (2, L, CFG.d_model), jnp.float32), PART, "l2_token")
        delta = radius * unit(ascent(0.5 * radius * probe), PART, "l2_token")

        def loss(p):
            clean, whole = jax.lax.stop_gradient(log_p(p, PART, CFG)), twin.loss(p, BATCH, CFG)
            apart = kl(clean, log_p(p, PART, CFG, delta), PART.weights)
            return whole + WEIGHT * apart, twin.loss(p, PART, CFG, delta), whole

        return loss

    check({"method": "vat", "probe": 0.5}, resolved(CFG), CFG, formula)


def test_r3f():
    """Aghajanyan et al. 2021: symmetric KL, both branches learn, the noisy one looks up in a detached table."""
    cfg = tiny.MODERN

    def formula(params):
        noise = drawn(params, cfg, 2)

        def loss(p):
            held = p | {"embed": jax.lax.stop_gradient(p["embed"])}
            clean, noisy, whole = log_p(p, PART, cfg), log_p(held, PART, cfg, noise), twin.loss(p, BATCH, cfg)
            apart = kl(clean, noisy, PART.weights) + kl(noisy, clean, PART.weights)
            return whole + WEIGHT * apart, twin.loss(p, PART, cfg, noise), whole

        return loss

    check({"method": "r3f"}, resolved(cfg), cfg, formula)


def test_noise():
    """Jain et al. 2024: U(-1, 1) alpha / sqrt(n d), n being the length of the document and not of the padded row."""
    count = np.array([[(row == s).sum() for s in row] for row in BATCH.segments])[..., None]

    def formula(params):
        noise = drawn(params, CFG, 4) / size(params, 4) * mean(size(params, 4), BATCH) / np.sqrt(count)
        return lambda p: [twin.loss(p, BATCH, CFG, noise)] * 3

    settings = {"method": "noise", "norm": "l2_sequence", "init": "uniform", "fraction": 1.0, "weight": 1.0}
    check(settings, PARAMS, CFG, formula)


def test_softmax_margin():
    """The lowered logit of Wang et al. 2019 in the attacked rows, the plain one in the others."""

    def loss(p):
        hidden, table = twin.forward(p, BATCH, CFG), p["embed"]["table"]
        length = jax.lax.stop_gradient(jnp.linalg.norm(table, axis=-1))[BATCH.targets]
        logits, hit = hidden @ table.T, np.arange(V) == BATCH.targets[..., None]
        gold = (logits * hit).sum(-1)
        low = jnp.where(gold > 0, RADIUS * length * jnp.linalg.norm(hidden, axis=-1), 0.0).at[2:].set(0.0)
        losses = BATCH.weights * (jax.nn.logsumexp(logits - hit * low[..., None], -1) - gold + low)
        return WEIGHT * losses[:2].sum() + losses[2:].sum(), losses[:2].sum(), twin.loss(p, BATCH, CFG)

    check({"method": "softmax_margin"}, PARAMS, CFG, lambda params: loss)


def test_a_price_on_activations_does_not_bend_the_divergence():
    """vat and r3f attack as they do without it: the same perturbed loss, and of the gradient only the clean price."""
    cfg, params = tiny.RECTIFIED, tiny.spiced(tiny.RECTIFIED)

    def found(weight, **settings):
        made = dataclasses.replace(config(cfg, **settings), objective=ObjectiveConfig(activation_l1=weight))
        return gradients(made, params)

    price = jax.tree.map(jnp.subtract, found(0.1, method="off")[0], found(0.0, method="off")[0])
    for method in ("vat", "r3f"):
        (plain, calm, _), (priced, dear, _) = found(0.0, method=method), found(0.1, method=method)
        assert float(calm.others["loss_attacked"].loss) == pytest.approx(
            float(dear.others["loss_attacked"].loss), rel=1e-5
        )
        assert tiny.worst(jax.tree.map(jnp.subtract, priced, plain), price, floor=0.1) < 1e-3


# What holds for all of them

ALL = [
    {"method": "fgm", "loss": "ce"},
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


@functools.cache
def without():
    return gradients(config(method="off"), PARAMS)


@pytest.mark.parametrize("settings", [ALL[i] for i in (0, 2, 3, 5, 7)], ids=lambda s: s["method"])
def test_steps_between_two_attacks_are_plain(settings):
    """start 0.2 of 10 steps and every 3rd: steps 2, 5 and 8 attack."""
    made = tiny.jit(objectives.build(config(start=0.2, every=3, **settings)).gradients)
    plain, expected, _ = without()
    for step in (0, 4, 5):
        grads, sums, _ = made(PARAMS, BATCH, KEY, jnp.int32(step), ())
        attacked = float(sums.others["loss_attacked"].weight) > 0
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
    monkeypatch.setattr(objectives, "build", lambda c, *bound: dense_objective.dense(c.model, c.objective))
    assert ours == text() and "dot" in ours


@pytest.mark.parametrize("settings", [ALL[i] for i in (0, 2, 4)], ids=lambda s: s["method"])
def test_the_same_under_remat_with_layers_unrolled_and_other_kernels(settings):
    """What a backward pass computes again, and how, is the attack that it was."""
    way = dataclasses.replace(tiny.MODERN, remat="full", kernels="cpu", scan_unroll=2)
    rolled, other = (gradients(config(cfg, **settings), tiny.spiced(cfg))[:2] for cfg in (tiny.MODERN, way))
    assert tiny.worst(other, rolled, floor=0.1) < (1e-3 if settings["method"] == "vat" else 1e-4)


@pytest.mark.parametrize("settings", [{"method": "fgm", "loss": "kl"}, {"method": "freelb"}], ids=lambda s: s["method"])
def test_microbatches_attack_the_rows_that_one_batch_would(settings):
    whole, parts = (gradients(config(**settings), PARAMS, parts=parts)[:2] for parts in (1, 2))
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
    assert float(sums.others["loss_attacked"].loss) == pytest.approx(float(sums.loss), rel=1e-5)
    _, undropped, _ = gradients(config(method="off", cfg=tiny.MODERN), params, only)
    assert abs(float(sums.loss) - float(undropped.loss)) > 0.1


@pytest.mark.parametrize("method", ["fgm", "vat"])
def test_in_bfloat16_the_perturbation_is_as_strong(method):
    exact, found = (
        float(
            gradients(config(dataclasses.replace(CFG, dtype=dtype), method=method), PARAMS)[1]
            .others["loss_attacked"]
            .loss
        )
        for dtype in ("float32", "bfloat16")
    )
    assert found == pytest.approx(exact, rel=0.02)


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
        ({"method": "fgm", "fraction": 1.5}, "must lie in (0, 1]"),
        ({"method": "pgd", "rdrop": 1.0}, "alters the main pass"),
        ({"method": "fgm", "delayed": True, "proximity": 1.0}, "alters the main pass"),
        ({"method": "fgm", "delayed": True, "fraction": 0.6}, "at most 0.5"),
        ({"method": "fgm", "delayed": True, "step_size": 0.5}, "step-size 0 or 1"),
        ({"method": "softmax_margin", "norm": "linf"}, "does not look at --adversarial.norm; leave it at l2_token"),
        ({"method": "vat", "step_size": 0.5}, "does not look at --adversarial.step-size"),
        ({"method": "fgm", "probe": 0.2}, "does not look at --adversarial.probe"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_mend(settings, said):
    with pytest.raises(UserError, match="--adversarial") as refused:
        AdversarialConfig(**settings)
    assert said in str(refused.value)


def test_a_run_too_short_for_its_start_is_refused():
    attack, train = AdversarialConfig(method="fgm", start=0.99), TrainConfig(steps=20)
    with pytest.raises(UserError, match=r"start 0\.99 leaves none of 20 steps"):
        Config(adversarial=attack, train=train, optimizer=OptimizerConfig(warmup_steps=0))
    assert dataclasses.replace(attack, start=0.07).first(100) == 7, "0.07 * 100 is a little more in floats"


@pytest.mark.parametrize("method, fits", [("fgm", False), ("noise", False), ("off", True)])
def test_other_microbatches_are_another_attack(method, fits, tmp_path):
    """Which rows are attacked is decided in each of them."""
    made = Config(adversarial=AdversarialConfig(method=method))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(made)))
    with contextlib.nullcontext() if fits else pytest.raises(UserError, match="microbatches was 1 and is 2"):
        check_config(tmp_path, replace(made, {"train.microbatches": 2}), False)


def test_the_command_refuses_with_78():
    for flags in ({"adversarial.method": "fmg"}, {"adversarial.radius": "-0.1"}):
        code, said = runs.call("pretrain", **flags)
        assert code == 78 and len(said.strip().splitlines()) == 1 and "adversarial." in said
