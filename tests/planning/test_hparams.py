"""Rules for rate and batch against figures worked out from their papers, and how they refuse."""

import dataclasses

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.model import presets
from chinchilla_jax.planning import hparams
from chinchilla_jax.planning.hparams import LAWS, Scale, advice, band
from chinchilla_jax.scaling import counts

BILLION = Scale(n_matmul=1e9, n_nonembed=1e9, tokens=1e11, work=6e20, width=2048)


def at(**changes) -> Scale:
    return dataclasses.replace(BILLION, **changes)


@pytest.mark.parametrize(
    "name, where, rate, batch",
    [
        ("step-law", BILLION, 1.632e-3, 1.108e6),
        ("deepseek", at(work=1e20), 9.86e-4, 1.017e6),
        ("porian", BILLION, 2.238e-3, 705.5 * 2048),
        ("marin", at(tokens=2**16 * 4096 * 128.0, width=2048, work=1e20), 0.33 * 128**0.5 / 2048, 128 * 4096),
        ("nanochat", at(tokens=1.32e9, n_matmul=1.1e8), None, 2**19),
    ],
)
def test_values(name, where, rate, batch):
    found = advice(name, where)
    assert found[0] == (rate and pytest.approx(rate, rel=4e-4))
    assert found[1] == pytest.approx(batch, rel=4e-4)


def test_what_a_rule_counts():
    cfg = presets.preset("modern-150m")
    where = hparams.scale(cfg, 1e9, seq_len=2048)
    assert where.n_matmul == counts.matmul_parameters(cfg) and where.n_nonembed == counts.non_embedding(cfg)
    assert where.work / 1e9 == counts.flops(cfg, 2048, "palm") - 6 * counts.tables(cfg) + 6 * (25 * cfg.d_model)
    assert advice("step-law", where, force=True) == advice(
        "step-law", dataclasses.replace(where, n_matmul=1.0), force=True
    )
    assert advice("porian", where, force=True) == advice(
        "porian", dataclasses.replace(where, n_nonembed=1.0), force=True
    )


def test_outside_its_range_a_rule_is_refused_by_name():
    large = at(n_nonembed=7e10, n_matmul=7e10, tokens=1.4e12, work=6e23)
    for name, rule in LAWS.items():
        assert not rule.inside(large)
        with pytest.raises(UserError, match=f"{name} was measured for .* to .*, and this run lies outside"):
            advice(name, large)
        assert advice(name, large, force=True)
    with pytest.raises(UserError, match="did you mean step-law"):
        advice("steplaw", BILLION)
    with pytest.raises(UserError, match="tokens must be a positive number"):
        at(tokens=float("nan"))


def test_the_band_is_of_rules_in_their_range():
    for what, column in (("rate", 0), ("batch", 1)):
        found = band(BILLION, what)
        known = {name: advice(name, BILLION)[column] for name, rule in LAWS.items() if rule.inside(BILLION)}
        values = [value for value in known.values() if value]
        assert set(found.rules) <= set(known) and "step-law" in found.rules and "deepseek" not in found.rules
        assert (found.low, found.high) == pytest.approx((min(values), max(values)))
        assert found.low <= found.pick <= found.high
    assert {row["rule"] for row in hparams.comparison(BILLION)} == {n for n, r in LAWS.items() if r.inside(BILLION)}


def test_where_no_rule_was_measured_the_nearest_go_on():
    found = band(at(n_nonembed=7e11, n_matmul=7e11, tokens=1e13, work=4e25), "rate")
    assert found.rules == () and found.low == found.pick == found.high and 1e-5 < found.pick < 1e-3


def test_picks_do_not_jump_and_stay_positive():
    """A quarter of a decade at a time: batch and rate within a factor of four (of the rules alone: of forty)."""
    before = None
    for k in range(60):
        N = 10 ** (5 + k / 8)
        scale = Scale(N, N, 20 * N, 120 * N * N, 4 * (N / 12) ** (1 / 3))
        here = [band(scale, what).pick for what in ("rate", "batch")]
        assert min(here) > 0
        assert before is None or all(1 / 4 < a / b < 4 for a, b in zip(here, before))
        before = here


@pytest.mark.parametrize("preset", ["chinchilla-44m", "modern-1b", "chinchilla-70b"])
def test_a_pick_for_any_model(preset):
    cfg = presets.preset(preset)
    where = hparams.scale(cfg, 20 * counts.parameters(cfg))
    assert 1e-5 < band(where, "rate").pick < 1e-2 and 1e4 < band(where, "batch").pick < 1e8
