"""The speed-up of one recipe over another against laws whose ratio is known."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.scaling.analysis import Settings, law_of
from chinchilla_jax.scaling.compare import compare, opened
from chinchilla_jax.scaling.law import Surface
from chinchilla_jax.scaling.lawfile import shipped
from chinchilla_jax.scaling.runs import table

TRUTH = Surface(np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28)


def runs(speed: float, seed: int):
    """A recipe for which D tokens are worth `speed` D: at the optimum that is speed^(beta / (alpha + beta) + ...)."""
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(3e7, 3e9, 6), np.geomspace(1e9, 5e10, 5)))
    noise = np.exp(np.random.default_rng(seed).laplace(0, 0.002, len(N)))
    return table(N, D, TRUTH.loss(N, speed * D) * noise, source=f"recipe {speed:g}")


@pytest.fixture(scope="module")
def laws():
    settings = Settings(replicates=200)
    return {speed: law_of(runs(speed, i), settings) for i, speed in enumerate((1.0, 2.0))}


def test_twice_the_worth_of_a_token_is_twice_the_speed(laws):
    """C = 6 N D: what D' = 2 D tokens do with N parameters costs half as much, at every budget."""
    found = compare(laws[2.0], laws[1.0], level=0.9)
    for row in found["rows"][:4]:
        low, high = row["interval"]
        assert low < row["speed_up"] < high and low < 2 < high and high / low < 2
    again = compare(laws[1.0], laws[2.0], (1e20,))["rows"][0]
    assert again["speed_up"] == pytest.approx(0.5, rel=0.05) and again["interval"][1] < 1


def test_what_one_never_reaches_has_no_speed():
    """C4's law ends at 1.87 nats, above what MassiveText's reaches with enough compute."""
    pot = shipped()["massivetext"]
    other = dataclasses.replace(pot, forms=tuple(_raised(one) for one in pot.forms), name="raised")
    row = compare(other, pot, (1e26,))["rows"][0]
    assert row["speed_up"] == 0 and row["interval"][0] == 0


def test_laws_that_lead_with_other_forms_are_compared_in_one():
    """The value lies in its interval, which pairs equal forms."""
    pot = shipped()["massivetext"]
    assert pot.forms[0].form != shipped()["marin-dclm"].forms[0].form
    for row in compare(pot, shipped()["marin-dclm"])["rows"]:
        low, high = row["interval"]
        assert low < row["speed_up"] < high


def _raised(one):
    theta = (*one.theta[:2], one.theta[2] + 0.2, *one.theta[3:])
    draws = one.draws.copy()
    draws[:, 2] += 0.2
    return dataclasses.replace(one, theta=theta, draws=draws)


def test_units_and_ranges_are_looked_at(laws):
    bits = dataclasses.replace(laws[1.0], unit="bpb")
    with pytest.raises(UserError, match="do not compare"):
        compare(bits, laws[2.0])
    assert compare(laws[1.0], shipped()["massivetext"], (1e20,))["warnings"]
    with pytest.raises(UserError, match="share no range"):
        compare(shipped()["debian-cpu"], shipped()["massivetext"])


def test_a_floor_is_held(tmp_path):
    path, found = tmp_path / "runs.csv", runs(1.0, 5)
    rows = [f"{n!r},{d!r},{x!r}" for n, d, x in zip(*(v.tolist() for v in (found.N, found.D, found.loss)))]
    path.write_text("\n".join(["n_total,tokens,loss", *rows]))
    law = opened(str(path), 1.69)
    assert all(one.theta[2] == pytest.approx(np.log(1.69)) for one in law.forms)
    np.testing.assert_allclose(law.draws[:, 2], np.log(1.69))
    for text, floor, word in ((str(path), 9.0, "below the least loss"), ("massivetext", 1.69, "is a law already")):
        with pytest.raises(UserError, match=word):
            opened(text, floor)


def test_the_command(capfd):
    from chinchilla_jax.__main__ import main

    assert main(["compare", "epoch-exact", "hoffmann-tex", "--flops", "1e21"]) == 0
    assert "0.901" in capfd.readouterr().out
    assert main(["compare", "epoch-exact", "nothing"]) == 78
