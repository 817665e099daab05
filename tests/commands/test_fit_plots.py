"""Pictures of a fitted law: what is drawn, by the artists on the axes."""

from types import SimpleNamespace

import numpy as np
import pytest

from chinchilla_jax.commands import fit_plots


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().add_subplot()


def lines(axes) -> dict[str, tuple[list, list]]:
    """The lines with a label."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def rolled(reach, mean, worst) -> SimpleNamespace:
    """A row of the roll-out."""
    return SimpleNamespace(C_fitted=1e20, C_predicted=reach * 1e20, mean_error=mean, worst_error=worst)


def test_roll_out_in_per_cent_by_how_far_it_reaches(axes):
    rows = [rolled(2.0, 0.01, -0.03), rolled(8.0, None, None), rolled(4.0, 0.02, 0.05)]
    fit_plots.rollout(axes, SimpleNamespace(rollout=rows))
    found = lines(axes)
    assert found["mean"] == ([2.0, 4.0], [1.0, 2.0]) and found["worst"] == ([2.0, 4.0], [-3.0, 5.0])


def test_too_few_runs_for_a_roll_out_are_said(axes):
    fit_plots.rollout(axes, SimpleNamespace(rollout=[rolled(2.0, None, None)]))
    assert [text.get_text() for text in axes.texts] == ["too few runs to leave any out"] and not axes.get_lines()


def test_residuals_are_per_cents_over_tokens_a_parameter(axes):
    runs = SimpleNamespace(N=np.array([1e8, 1e9]), D=np.array([2e9, 4e10]))
    fit_plots.residuals(axes, SimpleNamespace(fit=SimpleNamespace(runs=runs, residuals=np.log([1.02, 0.95]))))
    (dots,) = axes.collections
    assert np.allclose(dots.get_offsets(), [[20, 2], [40, -5]]) and np.allclose(dots.get_array(), [8, 9])


@pytest.mark.parametrize(
    "interval, band", [((10.0, 30.0), (10, 30)), ((None, 30.0), (18, 30)), ((10.0, None), (10, 18))]
)
def test_other_choices_stand_beside_the_interval(axes, interval, band):
    """An end that is unknown is that of the lowest choice drawn."""
    rows = [
        SimpleNamespace(what=what, tokens_per_param=ratio) for what, ratio in (("a", 20.0), ("none", None), ("b", 18.0))
    ]
    answers = [{"tokens_per_param": {"interval": interval}}]
    settings = SimpleNamespace(level=0.9, flops=(1e21,))
    fit_plots.sensitivity(axes, SimpleNamespace(sensitivity=rows, answers=answers, settings=settings))
    (drawn,) = axes.get_lines()
    assert list(drawn.get_xdata()) == [18.0, 20.0] and list(drawn.get_ydata()) == ["b", "a"]
    (patch,) = axes.patches
    assert (patch.get_x(), patch.get_x() + patch.get_width()) == band
