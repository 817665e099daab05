"""A ladder that is run: a branch is the whole run, nothing runs twice, and it goes on wherever it was killed."""

import json

import jax
import pytest

from chinchilla_jax.config import ModelConfig
from chinchilla_jax.evaluation import pace
from chinchilla_jax.parallel import mesh
from chinchilla_jax.planning import ladder
from chinchilla_jax.scaling import counts
from tests import runs

TINY = {
    "model.layers": 1,
    "model.d-model": 16,
    "model.heads": 1,
    "model.head-dim": 16,
    "model.d-ff": 32,
    "train.seq-len": 8,
    "train.batch-size": 8,
    "train.log-every": 1,
    "optimizer.peak-lr": 1e-2,
    "checkpoint.every": 100,
    **runs.SILENT,
}


def make_quick(patch) -> None:
    """Short runs of few durations on one device: eight that are not there cost more than the runs."""
    build = mesh.build
    patch.setattr(ladder, "DURATIONS", 2)
    patch.setattr(jax, "clear_caches", lambda: None)
    patch.setattr(pace, "tokens_per_second", lambda config, seconds: 1e4)
    patch.setattr(mesh, "build", lambda config, devices=None: build(config, devices or jax.devices()[:1]))


@pytest.fixture
def quick(monkeypatch, compiled_once):
    make_quick(monkeypatch)


def sweep(folder, store, *words, **changes):
    """A ladder of two sizes and a few steps."""
    largest = ModelConfig(layers=1, d_model=16, heads=1, head_dim=16, d_ff=32, vocab_size=320)
    sizes = [str(counts.parameters(ladder.model_like(largest, d_model))) for d_model in (8, 16)]
    flags = {**TINY, "data.store": store, "run-dir": folder, "budget": 1.3e8, "least-steps": 10, **changes}
    return runs.call("sweep", "--sizes", *sizes, *words, **flags)


@pytest.fixture(scope="module")
def swept(tiny_store, tmp_path_factory):
    """A whole tiny sweep."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    with runs.compiled_once(), pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        code, said = sweep(folder, tiny_store)
    assert code == 0, said
    return folder


def test_rows_are_what_the_fit_reads(swept, tiny_store, quick):
    from chinchilla_jax.scaling.runs import read

    found = read(swept / "runs.jsonl")
    assert len(found.N) == 4 and found.clusters == 2 and found.unit == "nats_token"
    rows = runs.rows(swept, "runs")
    assert len({row["run_id"] for row in rows}) == 4
    for row in rows:
        config = runs.config(swept / row["run_id"])
        params = runs.state(swept / row["run_id"]).params
        assert row["n_total"] == sum(leaf.size for leaf in jax.tree.leaves(params))
        assert row["n_total"] - row["n_nonembed"] == 320 * config.model.d_model
        assert row["tokens"] == config.train.steps * 64 and row["flops_6ND_total"] == 6 * row["n_total"] * row["tokens"]
        expected, _ = runs.naive_loss(swept / row["run_id"], tiny_store, params)
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_branch_is_the_whole_run(swept, quick, tmp_path):
    # The same config from its first step, without a trunk: the same bytes of every loss, and the same state.
    row = runs.rows(swept, "runs")[1]
    branch, whole = swept / row["run_id"], tmp_path / "whole"
    flags = {"run-dir": whole, "train.eval-batches": 0}  # a sweep validates on everything
    code, said = runs.call("pretrain", "--config", str(branch / "config.json"), **flags)
    assert code == 0, said
    assert json.dumps(runs.losses(whole)) == json.dumps(runs.losses(branch))
    assert len(runs.losses(whole)) == row["steps"] > 20
    assert runs.leaves(whole, row["steps"]) == runs.leaves(branch, row["steps"])
    valid = [found["valid_loss"] for found in runs.rows(whole) if "valid_loss" in found]
    assert valid == [row["loss"]] and not any("sample" in found for found in runs.rows(whole))


def test_a_second_call_runs_nothing(swept, tiny_store, quick, monkeypatch):
    from chinchilla_jax.evaluation import sweep as runner

    before = (swept / "runs.jsonl").read_bytes()
    monkeypatch.setattr(runner, "pretrain", None)
    code, said = sweep(swept, tiny_store)
    assert code == 0, said
    assert (swept / "runs.jsonl").read_bytes() == before


class Killed(BaseException):
    """What no handler in the house catches."""


def killed_in(place: str, patch) -> None:
    """Let the next sweep die there: in a trunk, before its checkpoint is linked, in a cooldown, or before its row."""
    from chinchilla_jax.evaluation import sweep as runner

    real = runner.pretrain

    def bombed(config, *rest, alarm=lambda done: None):
        trunk = config.optimizer.schedule == "constant"

        def bomb(done):
            if (place == "trunk" and trunk and done == 9) or (place == "cooldown" and done == config.train.steps - 1):
                raise Killed
            return alarm(done)

        return real(config, *rest, alarm=bomb)

    def stop(*args):
        raise Killed

    patch.setattr(runner, "pretrain", bombed)
    if place in ("link", "append"):
        patch.setattr(runner, place, stop)


def test_killed_anywhere_it_goes_on(swept, tiny_store, quick, tmp_path):
    folder = tmp_path / "killed"
    for place in ("trunk", "link", "cooldown", "append"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killed_in(place, patch)
            sweep(folder, tiny_store)
    code, said = sweep(folder, tiny_store)
    assert code == 0, said
    assert (folder / "runs.jsonl").read_bytes() == (swept / "runs.jsonl").read_bytes()


def test_runs_of_other_settings_are_not_mixed_in(swept, tiny_store, quick):
    """Runs that are still to come would have another rate, objective or text than those whose rows are there."""
    recipe = (swept / "recipe.json").read_bytes()
    for flag, said in (
        ("--optimizer.weight-decay", "optimizer.weight_decay was"),
        ("--lr-exponent", "lr_exponent was"),
    ):
        code, error = sweep(swept, tiny_store, flag, "0.3")
        assert code == 78 and said in error.splitlines()[-1] and "begun with" in error
    assert (swept / "recipe.json").read_bytes() == recipe
    (swept / "recipe.json").write_text(json.dumps(json.loads(recipe) | {"data": "other"}))
    code, error = sweep(swept, tiny_store)
    assert code == 78 and "data was 'other'" in error
    (swept / "recipe.json").write_bytes(recipe)
    code, error = sweep(swept, tiny_store, "--train.log-every", "2")
    assert code == 0, error


def test_another_ladder_is_refused(swept, tiny_store, quick):
    code, said = sweep(swept, tiny_store, budget=2e8)
    assert code == 78 and "another ladder" in said
