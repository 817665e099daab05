"""The question of a command line: what it may hold together, prices, and a time as a budget."""

import json
import math
from types import SimpleNamespace

import pytest

from chinchilla_jax.config import Config, replace
from chinchilla_jax.errors import UserError
from chinchilla_jax.planning.asked import asked, overruled, priced_at, shape_given, timed
from chinchilla_jax.planning.recipe import Machine

NAMES = [
    "flops",
    "params",
    "tokens",
    "loss",
    "ratio",
    "minutes",
    "hours",
    "usd",
    "chips",
    "price",
    "mfu",
    "unique_tokens",
    "config",
]
NOTHING = dict.fromkeys(NAMES) | {"sparsity": 0.0, "inference_tokens": 0.0, "experts": 0.0, "law": "auto", "level": 0.9}


def said(devices: int = 1, text: dict | None = None, **line):
    """The question of a line with these options; `__` stands for the dot of a setting."""
    return asked(SimpleNamespace(**NOTHING | {k.replace("__", "."): v for k, v in line.items()}), devices, **text or {})


def test_a_budget_is_shared_by_the_devices_that_are_here():
    found = said(8, {"unique_tokens": 5e9, "tokenizer": "t"}, flops=1e20, ratio=30.0, train__seq_len=64)
    assert found.budgets == {"flops": 1e20, "ratio": 30.0} and found.machine == Machine(chips=8)
    assert (found.seconds, found.unique_tokens, found.tokenizer, found.length) == (0.0, 5e9, "t", 64)
    assert found.given == {"train.seq_len": 64} and not found.own and not found.fixed
    assert said(text={"unique_tokens": 5e9}, flops=1e20, unique_tokens=3.0).unique_tokens == 3.0, "the line counts"


@pytest.mark.parametrize("line, seconds", [
    ({"minutes": 3.0}, 180), ({"hours": 2.0, "chips": "v5e-16"}, 7200),
    ({"usd": 100.0, "chips": "h100-8", "price": "2.5"}, 100 / (8 * 2.5) * 3600),
])  # fmt: skip
def test_time_and_money_are_seconds(line, seconds):
    found = said(**line)
    assert found.seconds == pytest.approx(seconds) and found.budgets == {}
    assert said(**line, ratio=20.0).budgets == {"ratio": 20.0}


@pytest.mark.parametrize("line, message", [
    ({"minutes": 1.0, "flops": 1e18}, "beside it only --params or --ratio"),
    ({"minutes": -1.0}, "--minutes must be a positive number"),
    ({"hours": math.inf, "chips": "v5e-16"}, "--hours must be a positive number"),
    ({"usd": 1.0, "chips": "h100-8", "price": "0"}, "--usd needs --price"),
    ({"flops": 1.0, "mfu": 1.5}, "--mfu 1.5"),
    ({"flops": 1.0, "mfu": 0.5}, "--mfu is of --chips"),
    ({"flops": 1.0, "price": "2.5"}, "--price is of --chips"),
    ({"flops": 1.0, "price": "nan", "chips": "h100-8"}, "--price nan: a number"),
    ({"flops": 1.0, "price": "-1", "chips": "h100-8"}, "--price -1: a number"),
    ({"flops": 1.0, "inference_tokens": -1.0}, "--inference-tokens -1"),
    ({"flops": 1.0, "sparsity": 0.5, "sparsity__target": 0.6}, "contradict each other"),
])  # fmt: skip
def test_what_cannot_be_together_is_said(line, message):
    with pytest.raises(UserError, match=message):
        said(**line)


def test_prices_are_numbers_or_stand_in_a_file(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"h100": 2.5}))
    assert priced_at("1.75", "h100") == 1.75 and priced_at(str(path), "h100") == 2.5
    with pytest.raises(UserError, match="no price of v5e; it has h100"):
        priced_at(str(path), "v5e")
    path.write_text(json.dumps({"h100": "two"}))
    with pytest.raises(UserError, match="not 'two'"):
        priced_at(str(path), "h100")


def test_settings_that_the_plan_decides_otherwise_are_said():
    given = {
        "train.batch_size": 48, "train.seed": 0, "model.remat": "auto", "mesh.fsdp": 4, "optimizer.weight_decay": 9.0,
    }  # fmt: skip
    made = replace(Config(), {"train.batch_size": 64, "model.remat": "full", "mesh.fsdp": 4})
    (line,) = overruled(given, made)
    assert line.startswith("--train.batch-size 48 is not followed, the plan decides on 64; give it to pretrain")


def test_a_shape_is_given_by_any_of_its_settings():
    assert shape_given(SimpleNamespace(**{"model.kv_heads": 2})) and said(flops=1.0, model__layers=3).fixed
    assert not shape_given(SimpleNamespace(**{"model.dtype": "float32", "train.steps": 3}))


def test_a_time_on_this_machine_asks_for_nothing_else():
    given = {"model.layers": 3, "train.seq_len": 128, "corruption.share": 0.0}
    found = timed(60.0, 1e6, 4, SimpleNamespace(minutes=1.0, **given))
    assert (found.budgets, found.seconds, found.machine.chips, found.unique_tokens) == ({}, 60.0, 4, 1e6)
    assert found.fixed and found.length == 128 and found.given == given
