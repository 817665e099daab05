"""Law files: exact in, exact out, every fault named; the shipped law says what Besiroglu et al. found."""

import dataclasses
import json

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling import lawfile
from chinchilla_jax.scaling.analysis import Settings, analyse
from chinchilla_jax.scaling.lawfile import Law
from chinchilla_jax.scaling.laws import Surface
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
    assert again.theta == found.law.theta  # to the last bit
    np.testing.assert_allclose(again.draws, found.law.draws, rtol=1e-7)
    for name in (f.name for f in dataclasses.fields(Law) if f.name != "draws"):
        assert json.dumps(getattr(again, name)) == json.dumps(getattr(found.law, name)), name


def test_answers(found):
    law, C = found.law, 1e22
    N, D = ROUNDED.optimum(C)
    low, high = law.interval("tokens_per_param", C, 0.99)
    assert low < D / N < high
    assert law.interval("params", C, 0.5)[0] > law.interval("params", C, 0.99)[0]
    loss, low, high = law.predict_loss(N, D, 0.9)
    only = lawfile.percentiles(law.replicates.loss(N, D), 0.9)
    assert low < only[0] < loss < only[1] < high
    assert law.inside(1e8, 1e10) and not law.inside(1e10, 1e10) and not law.inside(1e8, 1e12)
    with pytest.raises(UserError, match="did you mean tokens"):
        law.interval("token", C)
    with pytest.raises(UserError, match="holds no replicates"):
        dataclasses.replace(law, draws=None).interval("params", C)


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
        ({"theta": [1, 2]}, r"theta has shape \(2,\)"),
        ({"theta": [1, 2, 3, -1, 1, 0]}, "not positive"),
        ({"theta": [1, 2, 3, "x", 1, 0]}, "theta holds what is no number"),
        ({"draws": [[1, 2, 3, 4, 5, float("nan")]]}, "draws holds what is not finite"),
        ({"form": "cubic"}, "form 'cubic'"),
        ({"ranges": {"N": [1, 2]}}, "ranges has no D"),
        ({"colour": 1}, "unknown entry colour"),
        ({"flops": 0}, "flops 0"),
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
    law = lawfile.default()
    np.testing.assert_allclose(law.theta[:5], [6.16924638, 7.67015673, 0.59730681, 0.347310, 0.367172], atol=2e-5)
    assert law.quantity("tokens_per_param", 5.88e23) == pytest.approx(17.91, abs=0.005)
    np.testing.assert_allclose(law.interval("tokens_per_param", 5.88e23, 0.8), (9.9, 29.0), rtol=0.03)
    np.testing.assert_allclose(law.interval("tokens_per_param", 5.88e23, 0.95), (7.6, 35.9), rtol=0.03)
    np.testing.assert_allclose(law.interval("params", 5.88e23, 0.95), (52.2e9, 113.8e9), rtol=0.03)
    np.testing.assert_allclose(law.interval("loss", 5.88e23, 0.95), (1.9503, 2.0011), rtol=1e-3)
    assert "2022" in law.label and law.accounting == "6ND_total" and law.runs == 240
