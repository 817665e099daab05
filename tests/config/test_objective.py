"""What is minimised: attacks say what they would not follow, and what they take where nothing is said."""

import pytest

from chinchilla_jax.config import AdversarialConfig, whole_rows
from chinchilla_jax.config.objective import ATTACKS
from tests.config.refusals import refused

BAD = [
    ("objective.z_loss", -1.0, "negative"),
    ("objective.tile_tokens", -1, "negative"),
    ("adversarial.momentum", 1.0, "[0, 1)"),
    ("adversarial.radius", 0.1, "need an --adversarial.method; choose one or leave them out"),
    ("adversarial.delayed", True, "need an --adversarial.method"),
]


@pytest.mark.parametrize("path, value, hint", BAD)
def test_bad_values_are_refused_in_one_line(path, value, hint):
    refused({path: value}, hint)


@pytest.mark.parametrize("method, settings, hint", [
    ("noise", {"steps": 2}, "takes one step"), ("noise", {"loss": "kl"}, "with ce; set --adversarial.loss"),
    ("freelb", {"steps": 1}, "never attacks"), ("freelb", {"examples": 2}, "set --adversarial.examples 1"),
    ("vat", {"init": "zeros"}, "gaussian or uniform"), ("vat", {"step_size": 0.5}, "look at --adversarial.step-size"),
    ("fgm", {"probe": 0.5}, "not look at --adversarial.probe"), ("fgm", {"examples": 2}, "random --adversarial.init"),
    ("pgd", {"rdrop": 1.0}, "nothing is summed with it"), ("pgd", {"delayed": True}, "with --adversarial.method fgm"),
    ("fgm", {"delayed": True, "fraction": 0.6}, "at most 0.5"), ("fgm", {"fraction": 0.0}, "off attacks no rows"),
    ("softmax_margin", {"norm": "linf"}, "leave it at l2_token"),
])  # fmt: skip
def test_what_a_method_would_not_follow_is_refused(method, settings, hint):
    refused({"adversarial.method": method, **{f"adversarial.{name}": value for name, value in settings.items()}}, hint)


@pytest.mark.parametrize("method", ATTACKS)
def test_a_settled_attack_leaves_nothing_open_and_is_valid(method):
    settled = AdversarialConfig(method=method).settled()
    assert settled.settled() == settled and AdversarialConfig(**vars(settled)) == settled
    for name in ("radius", "fraction", "start", "proximity"):
        assert getattr(settled, name) is not None, name
    assert "auto" not in (settled.loss, settled.init) and settled.steps >= 1
    assert settled.on == (method != "off") and (settled.proximity > 0) == (method == "smart")


@pytest.mark.parametrize("method, radius, start", [
    ("fgm", 0.2, 0.67), ("noise", 0.2, 0.67), ("freelb", 0.1, 0.0), ("smart", 0.1, 0.0), ("r3f", 0.1, 0.0),
])  # fmt: skip
def test_a_method_takes_the_strength_that_was_measured(method, radius, start):
    settled = AdversarialConfig(method=method).settled()
    assert (settled.radius, settled.start) == (radius, start)


def test_what_is_said_stays_as_it_is():
    said = AdversarialConfig(method="pgd", steps=4, radius=0.0, fraction=0.5, start=0.0, init="zeros", step_size=0.3)
    settled = said.settled()
    assert (settled.steps, settled.radius, settled.fraction, settled.start) == (4, 0.0, 0.5, 0.0)
    assert (settled.init, settled.step_size) == ("zeros", 0.3)
    assert AdversarialConfig(method="pgd", steps=4).settled().step_size == 0.5, "2 / steps"
    assert AdversarialConfig(method="smart", radius=0.0).settled().proximity == 0.0, "SMART without a ball is plain"


@pytest.mark.parametrize(
    "start, steps, first", [(0.0, 10, 0), (0.6, 20, 12), (0.67, 100, 67), (0.05, 10, 1), (0.7, 10, 7)]
)
def test_the_first_step_that_attacks(start, steps, first):
    assert AdversarialConfig(method="fgm", start=start).first(steps) == first


def test_no_attack_starts_after_the_end():
    refused(
        {"adversarial.method": "fgm", "adversarial.start": 0.99, "train.steps": 3, "optimizer.warmup_steps": 1},
        "lower it",
    )


def test_a_share_of_rows_is_rounded_down_but_to_one():
    """Also where the product falls short of a whole number by rounding: 0.29 * 100 is 28.999999999999996."""
    assert [whole_rows(f, n) for f, n in ((0.125, 8), (0.125, 15), (0.125, 16), (0.01, 8), (1.0, 8), (0.29, 100))] == [
        1, 1, 2, 1, 8, 29,
    ]  # fmt: skip
