"""What the plan command knows of the text, and its words."""

import dataclasses
import json

import pytest

from chinchilla_jax.commands import plan
from chinchilla_jax.config import Config, replace
from chinchilla_jax.data.store import TokenStore
from chinchilla_jax.errors import UserError


@pytest.mark.parametrize("value, said", [
    (0.5, "0.5"), (999, "999"), (1000, "1k"), (1_234_567, "1.23M"), (70e9, "70B"), (1.4e12, "1.4T"), (2e15, "2e+15"),
    (-3e6, "-3M"),
])  # fmt: skip
def test_amounts(value, said):
    assert plan.amount(value) == said


@pytest.fixture
def store(tmp_path):
    """A manifest of two sources and one that has no text left."""
    sources = [{"name": "a", "tokens": 1000}, {"name": "b", "tokens": 3000}, {"name": "c", "tokens": 0}]
    manifest = {
        "splits": {"train": {"tokens": 4001, "sources": sources}}, "settings": {"weights": [3.0, 1.0]},
        "tokenizer": {"pieces": 320, "sha256": "0123456789abcdef"},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return replace(Config(), {"data.store": str(tmp_path)})


def test_the_vocabulary_is_that_of_the_text_unless_it_is_given(store):
    config, text = plan.with_text(store)
    assert config.model.vocab_size == 320 and text == {"unique_tokens": 4001, "tokenizer": "0123456789ab"}
    own = replace(store, {"model.vocab_size": 512})
    assert plan.with_text(own) == (own, text)
    nowhere = replace(Config(), {"data.store": "none/there"})
    assert plan.with_text(nowhere) == (nowhere, {}) and plan.manifest_of("none/there") == {}


def test_the_vocabulary_of_a_tokenizer_that_exists(tiny_store):
    config = replace(Config(), {"data.store": "none/there", "data.tokenizer": str(tiny_store)})
    made, text = plan.with_text(config, told=True)
    assert made.model.vocab_size == TokenStore.open(tiny_store).tokenizer.size and text == {}
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        plan.with_text(replace(config, {"data.tokenizer": "none/there"}))


def test_what_is_no_file_and_what_is_no_store_is_one_line(tmp_path, capfd):
    from chinchilla_jax.__main__ import main

    line = ["plan", "--flops", "1e20", "--chips", "v5e-4"]
    (tmp_path / "file").touch()
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    for more, code, said in (
        (["--out", str(tmp_path)], 78, "this is a folder; name a file"),
        (["--run-dir", str(tmp_path / "file")], 74, "cannot be written; choose another folder"),
        (["--data.store", str(tmp_path)], 78, "manifest.json is no token store's"),
    ):
        assert main([*line, *more]) == code
        assert said in capfd.readouterr().err


@pytest.mark.parametrize("law", [(), ("--law", "debian-cpu")])
@pytest.mark.parametrize("flag, value", [("--train.steps", "7"), ("--train.microbatches", "5")])
def test_what_the_plan_decides_by_itself_is_held_against_no_other_setting(flag, value, law, tmp_path, capsys):
    """Neither the warm-up nor the batch of the defaults, which it decides too, is a reason to refuse it."""
    from chinchilla_jax.__main__ import main

    assert main(["plan", "--flops", "1e12", *law, flag, value, "--out", str(tmp_path / "plan.json")]) == 0
    said = capsys.readouterr().out
    assert f"warning: {flag} {value} is not followed, the plan decides on " in said
    assert "give it to pretrain beside --plan" in said


def test_sources_are_read_by_the_weights_of_the_run_of_the_store_or_by_size(store):
    def shares(config):
        found = plan.by_source(config, 8000)
        assert all(row["epochs"] == pytest.approx(8000 * row["share"] / row["unique_tokens"]) for row in found)
        return {row["name"]: row["share"] for row in found}

    assert shares(store) == {"a": 0.75, "b": 0.25}
    assert shares(replace(store, {"data.weights": (1.0, 1.0)})) == {"a": 0.5, "b": 0.5}


def test_pruning_and_attacks_are_said_where_there_are_any():
    real = {"sparsity": 0.0, "dense_equivalent": 1.0, "step_multiple": 1.0}
    assert plan.bent(real, "off") == []
    (line,) = plan.bent({**real, "sparsity": 0.75, "dense_equivalent": 0.54}, "magnitude")
    assert line.startswith("75 % zeros by magnitude") and line.endswith("worth one of 0.54 of the size")
    assert (
        "nobody knows" in plan.bent(real, "l1")[0]
        and "1.900 plain ones" in plan.bent({**real, "step_multiple": 1.9}, "off")[0]
    )


def test_an_end_that_is_never_reached_is_said():
    optimum = {
        "params": {"value": 1e9, "interval": (5e8, None)}, "loss": {"value": 2.5, "interval": None},
        "tokens": {"value": 2e10, "interval": (1e10, 3e10), "prediction": (9e9, 4e10), "never": 0.25},
    }  # fmt: skip
    params, loss, tokens = plan._optimum(optimum)
    assert params.split() == ["params", "1B", "500M", "to", "never"] and loss.split() == ["loss", "2.5000", "unknown"]
    assert "9B to 40B" in tokens and "25% of the replicates never get there" in tokens


def test_compiling_needs_a_topology():
    for chips in ("", "v5e-16"):
        with pytest.raises(UserError, match="--compile needs a topology as --chips, such as v5e:4x4"):
            plan.compiled({"config": dataclasses.asdict(Config())}, chips)
