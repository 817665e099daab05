"""Methods of fine-tuning: settings that they look at, ranks, and the scale of an adapter by its paper's formula."""

import pytest

from chinchilla_jax.config import TuneConfig
from tests.config.refusals import refused


@pytest.mark.parametrize("method, settings, hint", [
    ("full", {"rank": 8}, "--tune.rank 8 is nothing that --tune.method full looks at"),
    ("ia3", {"alpha": 8.0}, "nothing that --tune.method ia3"), ("top", {"top": 0}, "at least 1"),
    ("lora", {"beta": 0.9}, "nothing that --tune.method lora"), ("lora", {"prompt": 5}, "that --tune.method lora"),
    ("full", {"weights": "int8"}, "use float"), ("lora", {"rows": (3, 3)}, "names an id twice"),
    ("adalora", {"start_rank": 8}, "below the rank at the end, --tune.rank 16"),
    ("lora", {"targets": "q("}, "no regular expression"),
    ("adalora", {"begin": 0.6, "finish": 0.4}, "leave some of the run"),
])  # fmt: skip
def test_what_a_method_would_not_follow_is_refused(method, settings, hint):
    refused({"tune.method": method, **{f"tune.{name}": value for name, value in settings.items()}}, hint)


def test_a_prompt_leaves_room_for_text():
    refused({"tune.method": "prompt", "tune.prompt": 64, "train.seq_len": 64}, "leaves no room")


def test_which_methods_train_a_whole_model():
    assert {m for m in ("off", "full", "head", "top", "lora", "norms") if TuneConfig(method=m).whole} == {"off", "full"}


@pytest.mark.parametrize("settings, ranks", [
    ({"method": "lora"}, (16, 16)), ({"method": "lora", "rank": 5}, (5, 5)), ({"method": "houlsby"}, (6, 6)),
    ({"method": "adalora"}, (24, 16)), ({"method": "adalora", "rank": 5}, (8, 5)),
    ({"method": "adalora", "rank": 5, "start_rank": 12}, (12, 5)),
])  # fmt: skip
def test_ranks_at_the_start_and_in_the_end(settings, ranks):
    assert TuneConfig(**settings).ranks(d_model=100) == ranks


def test_the_scale_of_an_adapter():
    """LoRA (Hu et al. 2021) alpha / r, rsLoRA (Kalajdzievski 2023) alpha / sqrt(r)."""
    assert TuneConfig(method="lora", rank=4, alpha=6.0).scale() == 1.5
    assert TuneConfig(method="rslora", rank=4, alpha=6.0).scale() == 3.0
    assert TuneConfig(method="dora", rank=4).scale() == 2.0, "alpha is twice the rank where nothing is said"
    assert TuneConfig(method="adalora", rank=4, alpha=6.0).scale() == pytest.approx(1.0, abs=1e-5), (
        "rank 6 at the start"
    )
