"""Tables of a fitted law's page, beside numbers made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.commands import fit_report


@pytest.fixture
def fit():
    """Six runs, of which a law overestimates the large ones by 2 % and misses one by 10 %."""
    N, D = np.array([1e8, 2e8, 4e8, 8e8, 16e8, 32e8]), np.array([6e9, 1e9, 5e9, 2e9, 4e9, 3e9])
    residuals = np.log1p([0.0, 0.0, -0.1, 0.0, 0.02, 0.02])
    runs = SimpleNamespace(N=N, D=D, loss=np.linspace(3, 2, 6), row=np.arange(2, 8))
    return SimpleNamespace(runs=runs, residuals=residuals)


def test_the_rows_that_are_missed_most_come_first(fit):
    found = fit_report.residual_table(fit, rows=3)
    assert [row["row"] for row in found] == [4, 6, 7] and found[0]["params"] == 4e8
    assert [row["residual_percent"] for row in found] == pytest.approx([-10, 2, 2])
    assert len(fit_report.residual_table(fit)) == 6, "as many as there are"


def test_misses_by_thirds_of_size_length_and_ratio(fit):
    """Each third in the mean of the logarithms."""
    rows = {row.pop("by"): list(row.values()) for row in fit_report.trends(fit)}
    r, percent = fit.residuals, lambda *rows: 100 * np.expm1(np.mean(fit.residuals[list(rows)]))
    assert rows["params"] == pytest.approx([percent(0, 1), percent(2, 3), percent(4, 5)])
    assert rows["tokens"] == pytest.approx([percent(1, 3), percent(5, 4), percent(2, 0)])
    assert rows["tokens_per_param"] == pytest.approx([percent(5, 3), percent(4, 1), percent(2, 0)])
    few = SimpleNamespace(residuals=r[:2], runs=SimpleNamespace(**{k: v[:2] for k, v in vars(fit.runs).items()}))
    assert np.isnan(fit_report.trends(few)[0]["high"]), "two runs have no third third"


def test_a_table_reads_well_as_it_is():
    said = fit_report.table(("choice", "N*"), [["a", "1.23M"], ["longer", ""]])
    assert said.splitlines() == ["| choice | N*    |", "| ------ | ----- |", "| a      | 1.23M |", "| longer |       |"]


def test_ends_that_are_never_reached_and_figures_that_there_are_none_of():
    assert fit_report._between({"value": 2.0, "interval": (1.0, None)}, "{:.1f}".format) == "2.0 (1.0, never)"
    assert fit_report._number(None, ".3g") == "" and fit_report._number(1.5, ".3g") == "1.5"
    assert fit_report._line("refused: 3 budgets are too few") == {"refused": "3 budgets are too few"}
