"""Ladders of small runs: what they cost and cover, that a branch is the whole run, and that nothing runs twice."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from chinchilla_jax.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.evaluation import pace
from chinchilla_jax.parallel import mesh
from chinchilla_jax.planning import ladder
from chinchilla_jax.scaling import counts
from tests import runs

BASE = Config(
    model=ModelConfig(layers=4, d_model=96, heads=6, head_dim=16, d_ff=256, vocab_size=512),
    optimizer=OptimizerConfig(peak_lr=3e-3),
    train=TrainConfig(batch_size=8, seq_len=64),
)
SIZES = [3e4, 6e4, 1.2e5, 4.9e5]
TINY = {
    "model.layers": 1,
    "model.d-model": 16,
    "model.heads": 1,
    "model.head-dim": 16,
    "model.d-ff": 32,
    "train.seq-len": 8,
    "train.batch-size": 8,
    "train.log-every": 1,
    "optimizer.peak-lr": 1e-2,
    "checkpoint.every": 100,
}


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


def make_quick(patch) -> None:
    """Short runs of few durations on one device: eight that are not there cost more than the runs."""
    build = mesh.build
    patch.setattr(ladder, "DURATIONS", 2)
    patch.setattr(pace, "tokens_per_second", lambda config, seconds: 1e4)
    patch.setattr(mesh, "build", lambda config, devices=None: build(config, devices or jax.devices()[:1]))


@pytest.fixture
def quick(monkeypatch):
    make_quick(monkeypatch)


def sweep(folder, store, *words, **changes):
    """A ladder of two sizes and a few steps."""
    largest = ModelConfig(layers=1, d_model=16, heads=1, head_dim=16, d_ff=32, vocab_size=320)
    sizes = [str(counts.parameters(ladder.model_like(largest, d_model))) for d_model in (8, 16)]
    flags = {**TINY, "data.store": store, "run-dir": folder, "budget": 1.3e8, "least-steps": 10, **changes}
    return runs.call("sweep", "--sizes", *sizes, *words, **flags)


@pytest.fixture(scope="module")
def swept(tiny_store, cache, tmp_path_factory):
    """A whole tiny sweep."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    with pytest.MonkeyPatch.context() as patch, runs.caching(cache):
        make_quick(patch)
        code, said = sweep(folder, tiny_store)
    assert code == 0, said
    return folder


def test_rows_are_what_the_fit_reads(swept, tiny_store, quick):
    from chinchilla_jax.scaling.runs import read

    found = read(swept / "runs.jsonl")
    assert len(found.N) == 4 and found.clusters == 2 and found.unit == "nats_token"
    rows = runs.rows(swept, "runs")
    assert len({row["run_id"] for row in rows}) == 4
    for row in rows:
        config = runs.config(swept / row["run_id"])
        params = runs.state(swept / row["run_id"]).params
        assert row["n_total"] == sum(leaf.size for leaf in jax.tree.leaves(params))
        assert row["n_total"] - row["n_nonembed"] == 320 * config.model.d_model
        assert row["tokens"] == config.train.steps * 64 and row["flops_6ND_total"] == 6 * row["n_total"] * row["tokens"]
        expected, _ = runs.naive_loss(swept / row["run_id"], tiny_store, params)
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_branch_is_the_whole_run(swept, quick, compiled_once, tmp_path):
    # The same config from its first step, without a trunk: the same bytes of every loss, and the same state.
    row = runs.rows(swept, "runs")[1]
    branch, whole = swept / row["run_id"], tmp_path / "whole"
    flags = {"run-dir": whole, "train.sample-tokens": 1, "train.eval-batches": 0}  # a sweep validates on everything
    code, said = runs.call("pretrain", "--config", str(branch / "config.json"), **flags)
    assert code == 0, said
    assert json.dumps(runs.losses(whole)) == json.dumps(runs.losses(branch))
    assert len(runs.losses(whole)) == row["steps"] > 20
    assert runs.leaves(whole, row["steps"]) == runs.leaves(branch, row["steps"])
    valid = [found["valid_loss"] for found in runs.rows(whole) if "valid_loss" in found]
    assert valid == [row["loss"]]


def test_a_second_call_runs_nothing(swept, tiny_store, quick, compiled_once, monkeypatch):
    from chinchilla_jax.evaluation import sweep as runner

    before = (swept / "runs.jsonl").read_bytes()
    monkeypatch.setattr(runner, "pretrain", None)
    code, said = sweep(swept, tiny_store)
    assert code == 0, said
    assert (swept / "runs.jsonl").read_bytes() == before


class Killed(BaseException):
    """What no handler in the house catches."""


def killed_in(place: str, patch) -> None:
    """Let the next sweep die there: in a trunk, before its checkpoint is linked, in a cooldown, or before its row."""
    from chinchilla_jax.evaluation import sweep as runner

    real = runner.pretrain

    def bombed(config, *rest, alarm=lambda done: None):
        trunk = config.optimizer.schedule == "constant"

        def bomb(done):
            if (place == "trunk" and trunk and done == 9) or (place == "cooldown" and done == config.train.steps - 1):
                raise Killed
            return alarm(done)

        return real(config, *rest, alarm=bomb)

    def stop(*args):
        raise Killed

    patch.setattr(runner, "pretrain", bombed)
    if place in ("link", "append"):
        patch.setattr(runner, place, stop)


def test_killed_anywhere_it_goes_on(swept, tiny_store, quick, compiled_once, tmp_path):
    folder = tmp_path / "killed"
    for place in ("trunk", "link", "cooldown", "append"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killed_in(place, patch)
            sweep(folder, tiny_store)
    code, said = sweep(folder, tiny_store)
    assert code == 0, said
    assert (folder / "runs.jsonl").read_bytes() == (swept / "runs.jsonl").read_bytes()


def test_another_ladder_is_refused(swept, tiny_store, quick, compiled_once):
    code, said = sweep(swept, tiny_store, budget=2e8)
    assert code == 78 and "another ladder" in said


def test_bad_input_is_one_line(tiny_store, tmp_path):
    for words, changes, word in (
        ((), {"budget": 1e3}, "needs at least"),
        ((), {"minutes": 1}, "--budget"),
        (("--train.batch-ramp", "((5, 16),)"), {}, "batch-ramp"),
        ((), {"data.store": tmp_path / "none"}, "no token store"),
    ):
        code, said = sweep(tmp_path / "bad", tiny_store, *words, **changes)
        assert code == 78 and word in said and said.count("\n") == 1, said
    assert not (tmp_path / "bad").exists()


def test_a_dry_run_shows_the_plan_and_writes_nothing(tiny_store, tmp_path, quick):
    code, said = sweep(tmp_path / "dry", tiny_store, "--dry-run", "--design", "isoflop", budget=1e9)
    assert code == 0 and "tokens a parameter" in said and not (tmp_path / "dry").exists()


def test_minutes_are_turned_into_a_budget():
    measured = pace.Pace((25_000, 500_000), (1e10, 4e10), 2.0, 10_000)
    assert measured.tokens_per_second(25_000) == pytest.approx(1e10 / 6 / 25_000)
    assert measured.tokens_per_second(round((25_000 * 500_000) ** 0.5)) * 6 * 111_803 == pytest.approx(2e10, rel=1e-3)

    def design(budget):
        return ladder.design(BASE, "branches", SIZES, budget, 0.5)

    for minutes in (10, 100):
        plan = design(pace.budget_for(60 * minutes, measured, design))
        assert measured.total(plan) == pytest.approx(60 * minutes, rel=0.1)
    # Every step, validation and program once, counted anew for one branch.
    run = plan.runs[1]
    steps = run.config.train.steps - plan.runs[0].fork
    took = (steps * 512 + 10_000 / 3) / measured.tokens_per_second(run.params) + 3 * 2.0
    assert measured.seconds(run) == pytest.approx(took)


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
