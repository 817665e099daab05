"""Every method against its formula, over the plain twin of the model in float64, ascents included."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import Config, replace
from chinchilla_jax.objectives import build as objectives
from tests import tiny
from tests.objectives import oracle
from tests.objectives.oracle import BATCH, KEY, PART, REST, WEIGHT, N, drawn, inside, mean, summed, unit

# Steps 2, 5 and 8 of 10 attack: one program does both.
LATE = {"start": 0.2, "every": 3}
CFG, PARAMS = oracle.TIED, tiny.spiced(oracle.TIED, scale=0.3)
TWIN, SIZE = oracle.of(CFG), oracle.size(PARAMS["embed"]["table"])


class Expected(NamedTuple):
    """Gradients, the attacked cross-entropy and the clean one."""

    grads: dict
    attacked: float
    clean: float


@functools.cache
def clean():
    return TWIN.entropy(PARAMS, BATCH)


def fgm(norm):
    """CE(e) + w CE(e + size * g/||g||) of Miyato et al. 2017, as two naive passes."""
    delta = (SIZE if norm == "l2_token" else mean(SIZE)) * unit(TWIN.entropy(PARAMS, PART).slope, norm=norm)
    there = TWIN.entropy(PARAMS, PART, delta)
    return Expected(summed((1, clean().grads), (WEIGHT, there.grads)), there.value, clean().value)


def fgm_by_divergence():
    delta = SIZE * unit(TWIN.entropy(PARAMS, PART).slope, norm="linf")
    apart = TWIN.apart(PARAMS, PART, delta)
    there = TWIN.entropy(PARAMS, PART, delta)
    return Expected(summed((1, clean().grads), (WEIGHT, apart.grads)), there.value, clean().value)


def pgd():
    """delta <- project(delta + 2/K size g/||g||), K = 3, from two starts; only the last points train."""
    starts = [drawn(CFG, SIZE, N, example=example, examples=2) for example in range(2)]
    ends = list(starts)
    for _ in range(3):
        ends = [inside(d + 2 / 3 * SIZE * unit(TWIN.entropy(PARAMS, PART, d).slope), SIZE) for d in ends]
    rest, there = TWIN.entropy(PARAMS, REST), [TWIN.entropy(PARAMS, PART, d) for d in ends]
    grads = summed((1, rest.grads), *((WEIGHT / 2, one.grads) for one in there))
    first = TWIN.entropy(PARAMS, PART, starts[0]).value
    return Expected(grads, sum(one.value for one in there), rest.value + first)


def freelb():
    """Zhu et al. 2020 with K = 3: the gradient is the mean over the K points, the last step moves nothing."""
    rest, points, delta = TWIN.entropy(PARAMS, REST), [], drawn(CFG, SIZE, N)
    for _ in range(3):
        points.append(TWIN.entropy(PARAMS, PART, delta))
        delta = inside(delta + 0.8 * SIZE * unit(points[-1].slope), SIZE)
    grads = summed((1, rest.grads), *((WEIGHT / 3, point.grads) for point in points))
    return Expected(grads, points[-1].value, rest.value + points[0].value)


def vat():
    """Miyato et al. 2018: the direction is the KL's own gradient at a small random probe; no label is used for it."""
    probe = unit(drawn(CFG, SIZE, N, kind="gaussian"))
    delta = SIZE * unit(TWIN.apart(PARAMS, PART, 0.5 * SIZE * probe).slope)
    grads = summed((1, clean().grads), (WEIGHT, TWIN.apart(PARAMS, PART, delta).grads))
    return Expected(grads, TWIN.entropy(PARAMS, PART, delta).value, clean().value)


def r3f():
    """Aghajanyan et al. 2021: symmetric KL, both branches learn, the noisy one looks up in a detached table."""
    noise = drawn(CFG, SIZE, N)
    apart = TWIN.apart(PARAMS, PART, noise, back=1.0, learns=1.0, held=1.0)
    grads = summed((1, clean().grads), (WEIGHT, apart.grads))
    return Expected(grads, TWIN.entropy(PARAMS, PART, noise).value, clean().value)


def noise():
    """Jain et al. 2024: U(-1, 1) alpha / sqrt(n d), n being the length of the document and not of the padded row."""
    count = np.array([[(row == s).sum() for s in row] for row in BATCH.segments])[..., None]
    there = TWIN.entropy(PARAMS, BATCH, drawn(CFG, mean(SIZE) / np.sqrt(count), 4))
    return Expected(there.grads, there.value, there.value)


def softmax_margin():
    """The lowered logit of Wang et al. 2019 in the attacked rows, the plain one in the others."""
    low, rest = TWIN.margin(PARAMS, PART), TWIN.entropy(PARAMS, REST)
    return Expected(summed((WEIGHT, low.grads), (1, rest.grads)), low.value, clean().value)


FORMULAS = {
    "fgm": ({"method": "fgm", "loss": "ce"} | LATE, functools.partial(fgm, "l2_token")),
    "fgm-document": ({"method": "fgm", "loss": "ce", "norm": "l2_sequence"}, functools.partial(fgm, "l2_sequence")),
    "fgm-kl": ({"method": "fgm", "loss": "kl", "norm": "linf"}, fgm_by_divergence),
    "pgd": ({"method": "pgd", "examples": 2} | LATE, pgd),
    "freelb": ({"method": "freelb", "steps": 3, "step_size": 0.8, "init": "uniform"} | LATE, freelb),
    "vat": ({"method": "vat", "probe": 0.5}, vat),
    "r3f": ({"method": "r3f"} | LATE, r3f),
    "noise": ({"method": "noise", "norm": "l2_sequence", "init": "uniform", "fraction": 1.0, "weight": 1.0}, noise),
    "softmax_margin": ({"method": "softmax_margin"} | LATE, softmax_margin),
}


@functools.cache
def program(name):
    return tiny.jit(objectives.build(oracle.config(CFG, **FORMULAS[name][0])).gradients)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_the_formula_s(name):
    """And the metrics are its attacked and its clean cross-entropy."""
    grads, sums, carry = program(name)(PARAMS, BATCH, KEY, jnp.int32(5), ())
    expected = FORMULAS[name][1]()
    assert carry == () and tiny.worst(grads, expected.grads, floor=0.1) < 1e-5
    assert float(sums.loss) == pytest.approx(expected.clean, rel=1e-6)
    assert float(sums.weight) == BATCH.weights.sum()
    assert float(sums.others["loss_attacked"].loss) == pytest.approx(expected.attacked, rel=1e-5)


@pytest.mark.parametrize("name", [name for name, (settings, _) in FORMULAS.items() if "every" in settings])
def test_steps_between_two_attacks_are_plain(name):
    for step in (0, 4, 5):
        grads, sums, _ = program(name)(PARAMS, BATCH, KEY, jnp.int32(step), ())
        attacked = float(sums.others["loss_attacked"].weight) > 0
        assert attacked == (step == 5) == (tiny.worst(grads, clean().grads, floor=1e-2) > 1e-4)
        assert attacked or float(sums.loss) == pytest.approx(clean().value, rel=1e-6)


def test_a_price_on_activations_does_not_bend_the_divergence():
    """vat and r3f attack as they do without it: the same perturbed loss, and of the gradient only the clean price."""
    cfg, params = oracle.RECTIFIED, tiny.spiced(oracle.RECTIFIED)

    def made(method, weight) -> Config:
        return replace(oracle.config(cfg, method=method), {"objective.activation_l1": weight})

    @tiny.jit
    def every(params):
        found = {}
        for method in ("off", "vat", "r3f"):
            for weight in (0.0, 0.1):
                found[method, weight > 0] = objectives.build(made(method, weight)).gradients(params, BATCH, KEY, 0, ())
        return {name: (grads, sums.others) for (name), (grads, sums, _) in found.items()}

    found = every(params)
    price = jax.tree.map(np.subtract, found["off", True][0], found["off", False][0])
    for method in ("vat", "r3f"):
        (plain, calm), (priced, dear) = found[method, False], found[method, True]
        assert float(calm["loss_attacked"].loss) == pytest.approx(float(dear["loss_attacked"].loss), rel=1e-5)
        assert tiny.worst(jax.tree.map(np.subtract, priced, plain), price, floor=0.1) < 1e-3


def test_a_pass_over_the_attacked_rows_drops_what_the_clean_pass_dropped():
    """With a vanishing radius the attacked rows have the loss of the same rows in the clean pass."""
    dropped = replace(oracle.config(CFG, method="fgm", radius=1e-7), {"model.dropout": 0.4})
    _, sums, _ = tiny.jit(objectives.build(dropped).gradients)(PARAMS, PART, KEY, 0, ())
    assert float(sums.others["loss_attacked"].loss) == pytest.approx(float(sums.loss), rel=1e-5)
    assert abs(float(sums.loss) - TWIN.entropy(PARAMS, PART).value) > 0.1


@pytest.mark.parametrize("name", ["fgm-kl", "vat"])
def test_in_bfloat16_the_perturbation_is_as_strong(name):
    made = replace(oracle.config(CFG, **FORMULAS[name][0]), {"model.dtype": "bfloat16"})
    found = tiny.jit(objectives.build(made).gradients)(PARAMS, BATCH, KEY, 0, ())[1].others["loss_attacked"].loss
    assert float(found) == pytest.approx(FORMULAS[name][1]().attacked, rel=0.02)
