"""Ladders of small runs: what they cost and cover, and shapes of one family."""

import dataclasses
import itertools

import numpy as np
import pytest

from chinchilla_jax.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.planning import ladder
from chinchilla_jax.scaling import counts

BASE = Config(
    model=ModelConfig(layers=4, d_model=96, heads=6, head_dim=16, d_ff=256, vocab_size=512),
    optimizer=OptimizerConfig(peak_lr=3e-3),
    train=TrainConfig(batch_size=8, seq_len=64),
)


SIZES = [3e4, 6e4, 1.2e5, 4.9e5]


@pytest.mark.parametrize("name", ladder.DESIGNS)
@pytest.mark.parametrize("budget", [4e12, 1e15])
def test_a_ladder_spends_its_budget_and_no_more(name, budget):
    plan = ladder.design(BASE, name, SIZES, budget, 1 / 3)
    assert 0.9 * budget < plan.total_flops <= budget
    assert len({run.run_id for run in plan.runs}) == len(plan.runs)
    assert min(run.config.train.steps for run in plan.runs) >= ladder.LEAST_STEPS


@pytest.mark.parametrize("name", ladder.DESIGNS)
def test_the_cost_is_that_of_every_step_once(name):
    # Counted anew: every cluster's longest stretch of trunk once, and every run's own steps behind its fork.
    plan = ladder.design(BASE, name, SIZES, 3e13, 1 / 3)
    total = 0.0
    for _, group in itertools.groupby(plan.runs, key=lambda run: run.cluster_id):
        group = list(group)
        own = sum(run.config.train.steps - run.fork for run in group)
        total += 6 * group[0].params * 8 * 64 * (max(run.fork for run in group) + own)
    assert plan.total_flops == pytest.approx(total)


@pytest.mark.parametrize("name", ladder.DESIGNS)
def test_tokens_per_parameter_are_diverse(name):
    plan = ladder.design(BASE, name, SIZES, 3e13, 1 / 3)
    ratios = sorted(run.tokens / run.params for run in plan.runs)
    assert ratios[-1] / ratios[0] > 10
    # The spread of durations that sizes leave unexplained: a law's exponents cannot be told apart without.
    size, length = (np.log([getattr(run, what) for run in plan.runs]) for what in ("params", "tokens"))
    assert np.std(length - np.polyval(np.polyfit(size, length, 1), size)) > 0.5
    assert {run.params for run in plan.runs} == {counts.parameters(ladder.rung(BASE.model, n)) for n in SIZES}


def test_settings_follow_the_size():
    plan = ladder.design(BASE, "branches", SIZES, 3e13, 0.5)
    largest = plan.runs[-1]
    assert largest.config.model == BASE.model and largest.config.optimizer.peak_lr == pytest.approx(3e-3)
    for run in plan.runs:
        rate = 3e-3 * (run.params / largest.params) ** -0.5
        assert run.config.optimizer.peak_lr == pytest.approx(rate, rel=1e-3)
        assert run.config.optimizer.warmup_steps <= max(1, run.params / 512)
        assert 0.79 < run.fork / run.config.train.steps < 0.81
        clusters = [other for other in plan.runs if other.cluster_id == run.cluster_id]
        assert {other.config.optimizer.warmup_steps for other in clusters} == {run.config.optimizer.warmup_steps}


def test_what_cannot_be_designed_is_said():
    for sizes, budget, word in (
        ([1e5], 1e13, "two --sizes"),
        ([1e5, 1.01e5], 1e13, "one shape"),
        (SIZES, 1e10, "needs at least"),
        (SIZES, float("nan"), "positive"),
        ([10, 1e5], 1e13, "no shape"),
        *(([size, 1e5], 1e13, "name positive") for size in (0, -5, float("inf"), float("nan"))),
    ):
        with pytest.raises(UserError, match=word):
            ladder.design(BASE, "branches", sizes, budget, 0.5)


def test_the_least_budget_that_is_named_is_enough():
    with pytest.raises(UserError) as found:
        ladder.design(BASE, "branches", SIZES, 1e10, 0.5)
    least = float(str(found.value).split("at least ")[1].split()[0])
    assert ladder.design(BASE, "branches", SIZES, 1.01 * least, 0.5).runs
    with pytest.raises(UserError):
        ladder.design(BASE, "branches", SIZES, 0.9 * least, 0.5)


def test_grouped_heads_keep_their_groups():
    grouped = dataclasses.replace(BASE.model, heads=6, kv_heads=2)
    for n in SIZES:
        model = ladder.rung(grouped, n)
        assert model.heads == 3 * model.kv_heads


def test_ladders_of_one_family_share_their_proportions():
    free = {"layers": 1, "d_model": 1, "heads": 1, "d_ff": 1, "init_std": 1.0}
    for n in SIZES:
        model = ladder.rung(BASE.model, n)
        assert dataclasses.replace(BASE.model, **free) == dataclasses.replace(model, **free)
        assert abs(model.d_ff / model.d_model - 256 / 96) < 0.5
        assert model.init_std**2 * model.d_model == pytest.approx(BASE.model.init_std**2 * 96, rel=1e-3)
