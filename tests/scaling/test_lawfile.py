"""Law files: exact in, exact out, every fault named; the shipped law says what Besiroglu et al. found."""

import dataclasses
import json

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling import lawfile
from chinchilla_jax.scaling.analysis import Settings, analyse
from chinchilla_jax.scaling.answer import Question, answer
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.lawfile import Form, LawFile
from chinchilla_jax.scaling.runs import table

ROUNDED = Surface(np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28)


@pytest.fixture(scope="module")
def found():
    """The analysis of 35 noisy runs of a known law."""
    N, D = np.repeat(np.geomspace(3e7, 3e9, 7), 5), np.tile(np.geomspace(1e9, 5e10, 5), 7)
    loss = ROUNDED.loss(N, D) * np.exp(np.random.default_rng(3).laplace(0, 0.004, len(N)))
    return analyse(table(N, D, loss), Settings(replicates=300, name="tiny"))


def test_round_trip(found, tmp_path):
    lawfile.save(found.law, tmp_path / "law.json")
    again = lawfile.load(tmp_path / "law.json")
    for name in (f.name for f in dataclasses.fields(LawFile) if f.name != "forms"):
        assert json.dumps(getattr(again, name)) == json.dumps(getattr(found.law, name)), name
    assert [one.form for one in again.forms] == [one.form for one in found.law.forms] and len(again.forms) == 3
    for old, new in zip(found.law.forms, again.forms):  # to the last bit
        np.testing.assert_array_equal(new.draws, old.draws)
        for name in (f.name for f in dataclasses.fields(Form) if f.name != "draws"):
            assert getattr(new, name) == getattr(old, name), name


def test_answers(found):
    law, C = found.law, 1e22
    N, D = ROUNDED.optimum(C)
    wide, narrow = (answer(law, Question(flops=C), level=level) for level in (0.99, 0.5))
    low, high = wide["tokens_per_param"]["interval"]
    assert low < D / N < high
    assert narrow["params"]["interval"][0] > wide["params"]["interval"][0]
    loss, low, high = law.predict_loss(N, D, 0.9)
    only = lawfile.percentiles(law.replicates.loss(N, D), 0.9)
    assert low < only[0] < loss < only[1] < high
    assert law.inside(1e8, 1e10) and not law.inside(1e10, 1e10) and not law.inside(1e8, 1e12)
    bare = dataclasses.replace(law, forms=(dataclasses.replace(law.forms[0], draws=None),))
    assert answer(bare, Question(flops=C))["params"]["interval"] is None
    with pytest.raises(UserError, match="holds no replicates"):
        bare.predict_loss(N, D)


def test_a_mixture_is_weighted_by_roll_out(found):
    """The truth is Chinchilla's form: it leads, Skaling's that contains it is near, Kaplan's hardly counts."""
    forms = found.law.forms
    assert forms[0].form == "chinchilla" and sum(one.weight for one in forms) == pytest.approx(1)
    for one in forms[1:]:
        assert one.weight / forms[0].weight == pytest.approx((forms[0].rollout / one.rollout) ** 2, rel=1e-3)
    weight = {one.form: one.weight for one in forms}
    assert weight["kaplan"] < 0.2 < weight["skaling"]
    for one in forms:
        assert len(one.draws) == round(300 * one.weight)


def test_an_interval_whose_edge_is_never_reached(found):
    """A loss that some replicates end above: the edge is None and the share is said."""
    law = found.law
    target = law.floor + 0.02
    got = answer(law, Question(loss=target), level=0.9)["flops"]
    above = np.mean(np.exp(law.draws[:, 2]) >= target)
    assert got["interval"][0] > 0 and got["interval"][1] is None and 0.05 < above <= got["never"] < 0.9
    assert "Infinity" not in json.dumps(got)


def test_what_a_law_warns_of(found):
    law = found.law
    far = [line for line in law.warnings(*law.surface.optimum(1e30)) if "times the law's largest run" in line]
    assert len(far) == 1 and not any("times" in line for line in law.warnings(1e8, 1e10))
    assert any("far from what public tables say" in line for line in law.warnings(1e9, 1.2e9))
    single = analyse(found.fit.runs, Settings(replicates=20, form="chinchilla")).law
    assert any("no doubt about the form" in line for line in single.warnings(1e8, 1e10))


def test_prediction_interval_holds_new_runs(found):
    """Nine in ten new runs of the same noise fall into the 90 % interval."""
    random = np.random.default_rng(9)
    N, D = np.exp(random.uniform(18, 21.5, 400)), np.exp(random.uniform(21, 24, 400))
    new = ROUNDED.loss(N, D) * np.exp(random.laplace(0, 0.004, 400))
    edges = np.array([found.law.predict_loss(n, d)[1:] for n, d in zip(N, D)])
    assert 0.83 < np.mean((edges[:, 0] < new) & (new < edges[:, 1])) < 0.97


def test_thin_keeps_the_percentiles():
    random = np.random.default_rng(0)
    draws = np.array([6.0, 7.0, 0.5, 0.35, 0.36, 0.0]) + 0.02 * random.normal(size=(4000, 6))
    few = lawfile.thin(draws, 500, 1e22)
    ratios = []
    for part in (draws, few):
        N, D = Surface(*part.T[:5], np.exp(part[:, 5])).optimum(1e22)
        ratios.append(np.percentile(np.log(D / N), [2.5, 10, 50, 90, 97.5]))
    assert len(few) == 500
    np.testing.assert_allclose(*ratios, atol=0.06)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "no law file"),
        ({"version": 9}, "version 9"),
        ({"forms": [{"form": "tied", "theta": [1, 2]}]}, r"theta has shape \(2,\)"),
        ({"forms": [{"form": "tied", "theta": [1, 2, 3, -1, 1, 0]}]}, "not positive"),
        ({"forms": [{"form": "tied", "theta": [1, 2, 3, "x", 1, 0]}]}, "theta holds what is no number"),
        ({"forms": [{"form": "tied", "theta": [1] * 6, "draws": [[1, 2, 3, 4, 5, float("nan")]]}]}, "not finite"),
        ({"forms": [{"form": "cubic", "theta": [1] * 6}]}, "form 'cubic'"),
        ({"forms": []}, "no list of forms"),
        ({"ranges": {"N": [1, 2]}}, "ranges has no D"),
        ({"colour": 1}, "unknown entry colour"),
        ({"per_nd": 0}, "per_nd 0"),
        ({"recipe": {"lr_exponent": 0.4}}, "recipe has no config"),
        ({"forms": [{"form": "tied", "theta": [1] * 6, "weight": "x"}]}, "weight holds what is no number"),
    ],
    ids=str,
)
def test_faults(found, tmp_path, change, message):
    path = tmp_path / "law.json"
    lawfile.save(found.law, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        lawfile.load(path)


def test_no_law_and_no_json(tmp_path):
    with pytest.raises(UserError, match="no such law file"):
        lawfile.load(tmp_path / "law.json")
    (tmp_path / "law.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        lawfile.load(tmp_path / "law.json")


def test_the_shipped_law():
    """Besiroglu et al.'s single form by name; the default is the pot, led by the same fit."""
    law = lawfile.shipped()["epoch-exact"]
    expected = [6.16924638, 7.67015673, 0.59730681, 0.347310, 0.367172]
    np.testing.assert_allclose(law.forms[0].theta[:5], expected, atol=2e-5)
    found = {level: answer(law, Question(flops=5.88e23), level=level) for level in (0.8, 0.95)}
    assert found[0.8]["tokens_per_param"]["value"] == pytest.approx(17.91, abs=0.005)
    np.testing.assert_allclose(found[0.8]["tokens_per_param"]["interval"], (9.9, 29.0), rtol=0.03)
    np.testing.assert_allclose(found[0.95]["tokens_per_param"]["interval"], (7.6, 35.9), rtol=0.03)
    np.testing.assert_allclose(found[0.95]["params"]["interval"], (52.2e9, 113.8e9), rtol=0.03)
    np.testing.assert_allclose(found[0.95]["loss"]["interval"], (1.9503, 2.0011), rtol=1e-3)
    assert "2022" in law.label and law.accounting == "6ND_total" and law.runs == 240
    pot = lawfile.default()
    assert [one.form for one in pot.forms] == ["chinchilla", "skaling", "kaplan"]
    np.testing.assert_array_equal(pot.forms[0].theta, law.forms[0].theta)


@pytest.mark.parametrize("name", lawfile.shipped())
def test_every_law_of_the_registry_says_where_it_is_from(name):
    law = lawfile.shipped()[name]
    assert law.name == name and law.label and law.dataset != "unnamed" and len(law.draws) >= 390
    held = law.estimator["held_out"]
    assert held["level"] == 0.9 and 0 < held["inside"] <= held["losses"]
    N, D = law.surface.optimum(law.ranges["C"][1], law.per_nd)
    assert law.ranges["N"][0] < N < 4 * law.ranges["N"][1] and 2 < D / N < 100
