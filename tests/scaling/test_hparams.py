"""Rules for rate and batch against figures worked out from their papers, and how they refuse."""

import dataclasses

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.model import presets
from chinchilla_jax.scaling import counts, hparams
from chinchilla_jax.scaling.hparams import LAWS, Scale, advice, suggest
from chinchilla_jax.scaling.transfers import TRANSFERS, Tuned, transfer

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


def test_every_rule_is_shown_with_their_disagreement():
    rows = suggest(BILLION)
    assert {row.rule for row in rows} == set(LAWS)
    inside = [row.rule for row in rows if row.inside]
    assert inside == [row.rule for row in rows][: len(inside)] and "step-law" in inside and "deepseek" not in inside
    rates = [row.peak_lr for row in rows if row.inside and row.peak_lr]
    assert hparams.disagreement(rows) == pytest.approx(max(rates) / min(rates)) and max(rates) > min(rates)
    text = hparams.table(rows)
    assert "1.63e-03" in text and text.count("outside its range") == len(LAWS) - len(inside)
    assert f"factors of {hparams.disagreement(rows):.1f} and" in text


@pytest.mark.parametrize("preset", ["chinchilla-44m", "modern-1b", "chinchilla-70b"])
def test_advice_for_any_model(preset):
    cfg = presets.preset(preset)
    rate, batch = hparams.advised(cfg, 20 * counts.parameters(cfg))
    assert 1e-5 < rate < 1e-2 and 1e4 < batch < 1e8
    assert {row["rule"] for row in hparams.comparison(cfg, 1e10)} == set(LAWS)


def test_transfers():
    was, longer = Tuned(1e-3, 2**19, 0.1, 0.95), at(tokens=8e11)
    assert transfer("bjorck", was, BILLION, longer).rate == pytest.approx(1e-3 * 8**-0.32)
    assert transfer("bjorck", was, BILLION, at(n_nonembed=1e10)).rate == pytest.approx(1e-3 * 10**-0.23)
    lines = transfer("power-lines", was, BILLION, longer)
    assert lines.batch == pytest.approx(2**19 * 8**0.383)
    assert lines.batch / (lines.rate * lines.decay * 8e11) == pytest.approx(was.batch / (was.rate * was.decay * 1e11))
    nano = transfer("nanochat", was, BILLION, longer)
    assert nano.rate / was.rate == pytest.approx((nano.batch / was.batch) ** 0.5)
    delphi = transfer("delphi", was, BILLION, longer, batch=2**21)
    assert delphi.rate == pytest.approx(1e-3 * 2 * 8**-0.3) and delphi.beta2 == pytest.approx(0.95**4)
    for name in TRANSFERS:
        assert transfer(name, was, BILLION, BILLION) == pytest.approx(was), "nothing changes where nothing does"
    with pytest.raises(UserError, match="holds the batch fixed"):
        transfer("bjorck", was, BILLION, longer, batch=2**20)
    with pytest.raises(UserError, match="did you mean delphi"):
        transfer("delfi", was, BILLION, longer)
