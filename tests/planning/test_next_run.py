"""The next run of a sweep: that it pays, against an isoFLOP set of the same cost, and what it is bounded by."""

import numpy as np
import pytest

from chinchilla_jax.config import stored
from chinchilla_jax.errors import UserError
from chinchilla_jax.planning import ladder
from chinchilla_jax.planning.next_run import BOUNDS, next_runs
from chinchilla_jax.planning.plan import COUNTS
from chinchilla_jax.scaling import lawfile
from chinchilla_jax.scaling.analysis import Settings, law_of
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.published import law_of as law_named
from chinchilla_jax.scaling.runs import table

TRUTH = Surface(6.16924638, 7.67015673, 0.59730681, 0.34731, 0.367172)


def isoflop(budgets, sizes):
    C = np.repeat(budgets, sizes)
    N = TRUTH.optimum(C)[0] * np.tile(np.geomspace(0.25, 4, sizes), len(budgets))
    return N, C / 6 / N


def seen(N, D, seed):
    return TRUTH.loss(N, D) * np.exp(np.random.default_rng(seed).laplace(0, 0.0047, len(N)))


def doubt(law, C):
    N, D = law.replicates.optimum(C)
    return float(np.log(D / N).std())


def test_it_tells_more_than_an_isoflop_set_of_the_same_cost():
    """Runs are really drawn and the law fitted again, three times: less is left unknown of ln D/N."""
    settings, C = Settings(form="chinchilla", replicates=200), 1e23
    N, D = isoflop(np.geomspace(1e18, 1e20, 4), 6)
    figures = []
    for seed in range(3):
        L = seen(N, D, seed)
        law = law_of(table(N, D, L), settings)
        before, found = next_runs(law, C, 1e21, 12)
        assert before == pytest.approx(doubt(law, C), rel=1e-6)
        more = np.array([run.N for run in found]), np.array([run.D for run in found])
        cost = sum(run.flops for run in found)
        assert cost <= 1e21 and 6 * (more[0] * more[1]).sum() == pytest.approx(cost)
        figures.append([before])
        for extra in (more, isoflop(np.array([cost / 12]), 12)):
            again = table(np.r_[N, extra[0]], np.r_[D, extra[1]], np.r_[L, seen(*extra, 100 + seed)])
            figures[-1].append(doubt(law_of(again, settings), C))
        figures[-1].append(found[-1].left)
    before, chosen, other, foreseen = np.mean(figures, 0)
    print(before, chosen, other, foreseen)
    assert chosen < 0.8 * before and chosen < 0.9 * other
    assert 0.5 < foreseen / chosen < 1.6


def test_sizes_stay_within_their_bounds():
    law = lawfile.default()
    _, found = next_runs(law, 1e24, 3e21, 6)
    for run in found:
        best = law.surface.optimum(run.flops, law.per_nd)[0]
        assert BOUNDS[0] * (1 - 1e-9) <= run.N / best <= BOUNDS[1] * (1 + 1e-9)
    lefts = [run.left for run in found]
    assert lefts == sorted(lefts, reverse=True)


def test_sizes_are_those_of_shapes_that_there_are():
    """By a law with its recipe: small budgets ask for sizes below the smallest shape, and for sizes between shapes."""
    law = law_named("debian-cpu")
    base, count = stored.from_json(law.recipe["config"]).model, COUNTS[law.count]
    for budget in (3e9, 2e13):
        _, found = next_runs(law, 1e16, budget, 3)
        assert found
        for run in found:
            assert count(ladder.rung(base, run.N, count)) == run.N
            assert run.N * run.D * law.per_nd == pytest.approx(run.flops)
    with pytest.raises(UserError, match="--budget 1000: no shape like that of the law's recipe"):
        next_runs(law, 1e16, 1e3)


def test_what_cannot_be_is_refused(capfd, tmp_path):
    from chinchilla_jax.__main__ import main

    with pytest.raises(UserError, match="--budget"):
        next_runs(lawfile.default(), 1e24, -1.0)
    assert main(["sweep", "--next", "2", "--budget", "1e20"]) == 78 and "--law" in capfd.readouterr().err
    assert main(["sweep", "--next", "2", "--law", "massivetext"]) == 78 and "--budget" in capfd.readouterr().err


def test_the_command_writes_configs_that_train(capfd, tmp_path):
    from chinchilla_jax.__main__ import main
    from chinchilla_jax.commands import config_files

    line = ["sweep", "--next", "2", "--law", "debian-cpu", "--budget", "2e13", "--run-dir", str(tmp_path)]
    assert main(line) == 0
    assert "pretrain --config" in capfd.readouterr().out
    made = config_files.load(tmp_path / "next_1.json")
    assert made.train.seq_len == 128 and made.optimizer.schedule == "wsd" and made.model.vocab_size == 1024
