"""A whole analysis of a table as a law file."""

from chinchilla_jax.scaling import analysis


def test_a_fit_in_levels_warns(whole):
    """Least squares in levels on all 245 points: about one token a parameter at 5.88e23."""
    law = analysis.law_of(whole, analysis.Settings(form="chinchilla", objective="mse-level", replicates=20))
    N, D = law.surface.optimum(5.88e23)
    assert D / N < 2 and any("far from what public tables say" in line for line in law.warnings(N, D))
