"""DPO against the published formula in float64, differences, and what it must not need."""

import dataclasses
import gzip
import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chinchilla_jax.config import Config, TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.model import transformer
from chinchilla_jax.objectives.dense import token_losses
from chinchilla_jax.objectives.objective import Binding
from chinchilla_jax.parallel.tiles import Tiling
from chinchilla_jax.tasks.kinds.preference import Pairs, pair_losses, preference, scores, there
from chinchilla_jax.types import Batch
from tests import tiny
from tests.model import twin

CFG = dataclasses.replace(tiny.MODERN, layers=1)
GOLDENS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks" / "goldens" / "metrics.json.gz"
BATCH = tiny.packed([[5, 4, 6, 3], [7, 5]], 20, CFG.vocab_size)


def numpy_loss(task: TaskConfig, batch: Batch, losses_BL, reference_BL) -> tuple[float, int]:
    """The formula pair by pair, and how many pairs there are."""
    total, pairs = 0.0, 0
    for row in range(len(batch.tokens)):
        segments = np.asarray(batch.segments[row])
        for chosen in range(1, segments.max(), 2):
            sides = []
            for segment in (chosen, chosen + 1):
                w = np.where(segments == segment, batch.weights[row], 0).astype(np.float64)
                count = w.sum() if task.preference == "ipo" else 1.0
                sides.append(-w @ (np.asarray(losses_BL[row], np.float64) - reference_BL[row]) / count)
            h = sides[0] - sides[1]
            if task.preference == "ipo":
                total += (h - 1 / (2 * task.beta)) ** 2
            else:
                right, wrong = np.logaddexp(0, -task.beta * h), np.logaddexp(0, task.beta * h)
                total += (1 - task.smoothing) * right + task.smoothing * wrong
            pairs += 1
    return total, pairs


hidden = tiny.jit(partial(transformer.apply, cfg=CFG))


def logits_losses(params, batch):
    """-log p of every target with all logits at once."""
    logits = np.asarray(hidden(params, batch)) @ np.asarray(transformer.unembedding(params)).T
    gold = np.take_along_axis(logits, batch.targets[..., None], -1)[..., 0]
    return np.logaddexp.reduce(logits, -1) - gold


def log_p(params, batch):
    """Log-probabilities of the targets (B, L), by the plain twin of the model."""
    logp = jax.nn.log_softmax(twin.logits(params, twin.forward(params, batch, CFG), CFG))
    return jnp.take_along_axis(logp, batch.targets[..., None], -1)[..., 0]


@tiny.jit
def forward(params):
    return log_p(params, BATCH)


@tiny.jit
def pulled_back(params, slope_BL):
    """The gradient of the parameters, given that of the log-probabilities."""
    return jax.vjp(lambda params: log_p(params, BATCH), params)[1](slope_BL)[0]


def formula_loss(task: TaskConfig, reference_BL, policy_BL):
    """The published loss over all pairs: -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h), or IPO's square."""
    total = 0.0
    for row, segments in enumerate(np.asarray(BATCH.segments)):
        for chosen in range(1, segments.max(), 2):
            masks = [np.where(segments == s, BATCH.weights[row], 0.0) for s in (chosen, chosen + 1)]
            masks = [w / w.sum() if task.preference == "ipo" else w for w in masks]
            h = jnp.dot(masks[0] - masks[1], policy_BL[row] - reference_BL[row])
            right, wrong = jax.nn.log_sigmoid(task.beta * h), jax.nn.log_sigmoid(-task.beta * h)
            dpo = -(1 - task.smoothing) * right - task.smoothing * wrong
            total += (h - 1 / (2 * task.beta)) ** 2 if task.preference == "ipo" else dpo
    return total


@pytest.fixture(scope="module")
def params():
    return tiny.spiced(CFG), tiny.spiced(CFG, seed=1)


TASKS = [TaskConfig(beta=0.3), TaskConfig(beta=0.3, smoothing=0.2), TaskConfig(beta=0.3, preference="ipo")]


@pytest.mark.parametrize("task", TASKS, ids=["sigmoid", "smoothed", "ipo"])
def test_loss_and_gradient_are_the_formula_s(params, task):
    """The reference is the frozen base, another model here; the formula in float64 over the plain twin."""
    policy, base = params
    config = Config(model=CFG, task=dataclasses.replace(task, kind="preference"))
    binding = Binding(base, lambda trained, frozen: trained, (), lambda frozen: frozen)
    objective = preference(config, binding)
    run = tiny.jit(lambda p: objective.gradients(p, BATCH, jax.random.key(0), 0, objective.init(p)))
    grads, sums, carry = run(policy)
    reference = logits_losses(base, BATCH)
    expected, pairs = numpy_loss(task, BATCH, logits_losses(policy, BATCH), reference)
    assert float(sums.loss) == pytest.approx(expected, rel=1e-5) and float(sums.weight) == pairs == 3
    assert carry == () and objective.weighs == "records"
    with jax.enable_x64(True):
        exact, fixed = (jax.tree.map(lambda x: np.asarray(x, "float64"), tree) for tree in (policy, base))
        formula = tiny.jit(jax.value_and_grad(partial(formula_loss, task), argnums=1))
        expected, slope_BL = formula(forward(fixed), forward(exact))
        slopes = pulled_back(exact, slope_BL)
    assert float(sums.loss) == pytest.approx(float(expected), rel=1e-5)
    assert tiny.worst(grads, slopes, floor=0.1) < 1e-5


def test_the_reference_itself_gives_ln_2_whatever_stands_for_it(params):
    """The frozen base, a copy in the carry, which full tuning keeps, or numbers stored at the first tokens."""
    policy, _ = params
    log_p_BP2 = np.asarray(scores(logits_losses(policy, BATCH), BATCH, False))
    stored_BL = np.zeros(BATCH.tokens.shape, np.float32)
    for row, pair, end in np.argwhere(log_p_BP2):
        stored_BL[row, np.argmax(BATCH.segments[row] == 2 * pair + end + 1)] = log_p_BP2[row, pair, end]
    for base, stored in ((lambda frozen: frozen, None), (None, None), (None, stored_BL)):
        config = Config(
            model=CFG, task=TaskConfig(kind="preference", reference="computed" if stored is None else "stored")
        )
        batch = dataclasses.replace(BATCH, reference=stored)
        objective = preference(config, Binding(policy, lambda trained, frozen: trained, (), base))
        assert (objective.init(policy) == ()) == (base is not None or stored is not None)
        run = tiny.jit(lambda p, o=objective, batch=batch: o.gradients(p, batch, jax.random.key(0), 0, o.init(p))[1])
        sums = run(policy)
        assert float(sums.loss / sums.weight) == pytest.approx(math.log(2), abs=1e-6)
        assert float(sums.others["margin"].loss) == pytest.approx(0, abs=1e-5)


def test_a_price_of_the_method_is_one_a_pair_however_long_the_answers_are(params):
    policy, base = params
    config = Config(model=CFG, task=TaskConfig(kind="preference"))

    def slopes(penalty):
        binding = Binding(base, lambda trained, frozen: trained, (), lambda frozen: frozen, penalty)
        objective = preference(config, binding)
        return tiny.jit(lambda p: objective.gradients(p, BATCH, jax.random.key(0), 0, ())[0]["norm"]["scale"])(policy)

    more = slopes(lambda p: 0.5 * p["norm"]["scale"].sum()) - slopes(None)
    np.testing.assert_allclose(more, np.full(CFG.d_model, 0.5 * 3), rtol=1e-4)


def test_the_reference_is_the_start_of_this_very_run(params):
    """A soft prompt is drawn by the seed; a run that names no base is not judged against a fresh model."""
    recipe = SimpleNamespace(needs_base=True, start=lambda key, base: {"drawn": jax.random.normal(key, (3,))})
    program = SimpleNamespace(
        recipe=recipe, whole=lambda trained: trained, base_params=dict, config=Config(), mesh=None,
        abstract_whole={"drawn": SimpleNamespace(sharding=None)},
    )  # fmt: skip
    examination = SimpleNamespace(program=program, compiled=lambda f: f)
    for seed in (0, 7):
        program.config = dataclasses.replace(Config(), train=dataclasses.replace(Config().train, seed=seed))
        expected = jax.random.normal(jax.random.key(seed), (3,))
        np.testing.assert_array_equal(Pairs(examination).start["drawn"], expected)
    recipe.needs_base = False
    with pytest.raises(UserError, match="judge the run that was tuned with finetune --from"):
        _ = Pairs(examination).start


def test_pairs_are_counted_by_segments():
    assert np.asarray(there(BATCH)).sum(1).tolist() == [2.0, 1.0]
    found = np.asarray(scores(-np.ones((2, 20), np.float32), BATCH, False))
    segments = np.asarray(BATCH.segments)
    expected = [[BATCH.weights[r][segments[r] == s].sum() for s in range(1, 11)] for r in range(2)]
    np.testing.assert_allclose(found.reshape(2, -1), expected)


def test_tiles_change_nothing(params):
    policy, _ = params
    for tiling in (Tiling(7), Tiling(10**6), Tiling(7, True)):
        own = hidden(policy, BATCH), transformer.unembedding(policy)
        found = np.asarray(token_losses(*own, BATCH.targets, BATCH.weights, tiling))
        asked = (BATCH.weights != 0) | (not tiling.trained)
        np.testing.assert_allclose(found[asked], logits_losses(policy, BATCH)[asked], rtol=2e-5, atol=1e-5)


@pytest.mark.skipif(not GOLDENS.exists(), reason="no ../shared/data/tasks/goldens here")
def test_goldens():
    """Float64 log-sigmoids of the published formulas, to 1e-6 relative."""
    with gzip.open(GOLDENS) as file:
        cases = json.load(file)["dpo"]
    for case in cases:
        policy, reference = (
            np.array([[[case[f"{who}_chosen"], case[f"{who}_rejected"]]]]) for who in ("policy", "ref")
        )
        for name, told in (
            ("sigmoid", {}),
            ("label_smoothing_0.1", {"smoothing": 0.1}),
            ("ipo", {"preference": "ipo"}),
        ):
            loss, margin = pair_losses(TaskConfig(beta=case["beta"], **told), policy, reference)
            assert float(loss[0, 0]) == pytest.approx(case[name], rel=2e-6, abs=1e-6)
            assert float(margin[0, 0]) == pytest.approx(case["reward_margin"], rel=2e-6, abs=1e-6)
