"""How parameters move, and which of them end at zero: patterns and settings that a method can follow."""

import pytest

from chinchilla_jax.config import SparsityConfig
from tests.config.refusals import refused

BAD = [
    ("optimizer.peak_lr", 0.0, "positive"),
    ("optimizer.b2", 1.0, "[0, 1)"),
    ("optimizer.clip_norm", -1.0, "negative"),
    ("optimizer.decay_fraction", 0.0, "(0, 1]"),
    ("optimizer.decay_fraction", 0.5, "set --optimizer.schedule wsd"),
    ("sparsity.target", 1.0, "[0, 1)"),
    ("sparsity.target", 0.9, "needs a --sparsity.method, such as magnitude"),
    ("sparsity.exclude", ("a(",), "no regular expression"),
    ("sparsity.start", 0.9, "in order"),
]


def test_a_constant_rate_has_no_share_to_decay_over():
    refused({"optimizer.schedule": "constant", "optimizer.decay_fraction": 0.5}, "nothing that constant looks at")


@pytest.mark.parametrize("path, value, hint", BAD)
def test_bad_values_are_refused_in_one_line(path, value, hint):
    refused({path: value}, hint)


@pytest.mark.parametrize("method, settings, hint", [
    ("magnitude", {"pattern": "4:2"}, "N below M"), ("magnitude", {"pattern": "block:0x4"}, "none of N:M"),
    ("magnitude", {"pattern": "row"}, "none of N:M"), ("n_m", {}, "choose 2:4"),
    ("rigl", {"pattern": "heads"}, "choose unstructured, rows, columns or block:RxC"),
    ("l1", {"strength": 1.0, "pattern": "rows"}, "choose unstructured"), ("l1", {}, "a --sparsity.strength above 0"),
    ("l1", {"strength": 1.0, "target": 0.5}, "sparsity.target 0.5 is nothing that l1"),
    ("magnitude", {"drop": 0.1}, "sparsity.drop 0.1 is nothing that magnitude"),
    ("magnitude", {"pattern": "2:4", "target": 0.9}, "sparsity.target 0.9 is nothing that magnitude with 2:4"),
    ("magnitude", {"pattern": "2:4", "distribution": "erk"}, "leaves nothing to share out"),
])  # fmt: skip
def test_what_a_method_would_not_follow_is_refused(method, settings, hint):
    refused({"sparsity.method": method, **{f"sparsity.{name}": value for name, value in settings.items()}}, hint)


def test_a_pattern_says_its_own_target():
    assert [SparsityConfig(method="n_m", pattern=p).implied for p in ("2:4", "1:4", "4:16")] == [0.5, 0.75, 0.75]
    assert SparsityConfig(method="magnitude", pattern="1:4", target=0.75).implied == 0.75, "and may be told so"
    assert SparsityConfig(method="magnitude", pattern="block:2x4").implied == 0.0


def test_what_suits_a_method_where_nothing_is_said():
    settled = {method: SparsityConfig(method=method).settled() for method in ("magnitude", "rigl", "set")}
    assert {method: (s.start, s.distribution) for method, s in settled.items()} == {
        "magnitude": (0.25, "uniform"), "rigl": (0.0, "erk"), "set": (0.0, "erk"),
    }  # fmt: skip
    assert SparsityConfig(method="rigl", start=0.1, distribution="global").settled().begin == 0.1
    assert SparsityConfig(method="n_m", pattern="2:4").settled().distribution == "auto", "nothing to share out"
