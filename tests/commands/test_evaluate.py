"""The evaluate command: every token once, against a computation that shares no code with it."""

import json
import math
import os
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from chinchilla_jax import config as configs
from chinchilla_jax.commands import evaluate, hints
from chinchilla_jax.evaluation import attack, noise
from chinchilla_jax.model.adapted import Prompt
from chinchilla_jax.training.load import load
from tests import runs


def test_it_equals_a_naive_computation_over_every_token(copy, tiny_store):
    """Over the whole set, although validation during training was limited to three batches."""
    report = runs.ask("evaluate", **{"run-dir": copy})
    loss, tokens = runs.naive_loss(copy, tiny_store, runs.state(copy).params)
    assert report["tokens"] == tokens == (tiny_store / "valid.bin").stat().st_size // 2 - 1
    assert report["loss_nats_per_token"] == pytest.approx(loss, rel=1e-6)
    assert report["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    text = (tiny_store / "valid.txt").read_bytes()
    assert report["bytes"] == len(text)
    assert report["bits_per_byte"] == pytest.approx(loss * tokens / math.log(2) / len(text), rel=1e-6)
    assert report["step"] == 20 and 0 < report["xz_bits_per_byte"] < 8 and 0 < report["gzip_bits_per_byte"] < 8


def test_other_batches_and_windows_of_the_same_length_change_nothing(copy):
    one = runs.ask("evaluate", **{"run-dir": copy})
    other = runs.ask("evaluate", **{"run-dir": copy, "train.batch-size": 24, "mesh.fsdp": 2, "mesh.data": 4})
    assert other["tokens"] == one["tokens"]
    assert other["loss_nats_per_token"] == pytest.approx(one["loss_nats_per_token"], rel=1e-6)


def test_settings_of_the_training_do_not_stand_in_its_way(copy):
    """A config whose zeros or attacks do not fit the run is no matter, since neither is evaluated."""
    made = configs.replace(runs.config(copy), {"sparsity.method": "magnitude", "sparsity.pattern": "block:5x5"})
    assert load(made, str(copy), whole_mesh=False).step == 20


def test_tokens_that_make_no_character_leave_the_typos_out(monkeypatch):
    loaded = SimpleNamespace(tokenizer=SimpleNamespace(lossless=True), program=Mock())
    monkeypatch.setattr(noise, "excerpts", lambda *_: [])
    assert attack.faulty(loaded, Mock(), attack.Attack()) == {}


def test_tokens_that_a_soft_prompt_leaves_no_place_for_are_said(capsys):
    table = np.ones((9, 2), np.float32)
    plain, soft = {"embed": {"table": table}}, {"embed": {"table": Prompt(table, np.ones((4, 2), np.float32))}}
    assert evaluate.left_out(plain, 90, 99) == evaluate.left_out(soft, 90, 90) == {} and capsys.readouterr().out == ""
    assert evaluate.left_out(soft, 1000, 1234) == {"tokens_left_out": 234}
    assert "note: 234 of 1,234 tokens are left out: a soft prompt of 4 " in capsys.readouterr().out


@pytest.mark.parametrize("kind, source", [("chat", "bidirectional"), ("spans", "twice")])
def test_tasks_of_lm_eval_are_refused_where_inputs_are_not_read_from_left_to_right(kind, source, tmp_path, monkeypatch):
    config = configs.replace(configs.Config(), {"task.kind": kind, "task.source": source})
    loaded = SimpleNamespace(program=SimpleNamespace(config=config), notes=[])
    monkeypatch.setattr("chinchilla_jax.training.load.load", lambda *args, **how: loaded)
    monkeypatch.setitem(sys.modules, "chinchilla_jax.evaluation.harness", Mock())
    code, said = runs.call("evaluate", "--lm-eval", "shakespeare_bits", **{"run-dir": tmp_path})
    assert code == 78 and said.count("\n") == 1 and f"--task.source {source}" in said and "with --task" in said


def test_it_prints_the_figures_and_writes_them_down(copy):
    code, said = runs.call("evaluate", **{"run-dir": copy})
    assert code == 0 and (copy / "evaluation.json").exists()
    assert all(name in said for name in ("loss_nats_per_token", "perplexity", "bits_per_byte", "xz_bits_per_byte"))
    assert said.splitlines()[-1].startswith(f"next: {hints.line('generate', '--run-dir')}")


def test_attack_gives_the_whole_protocol(copy):
    flags = {"run-dir": copy, "attack-tokens": 100, "restarts": 2}
    words = ("--attack", "--radii", "0.1", "0.5", "--typo-rates", "0", "0.1")
    report = runs.ask("evaluate", *words, **flags)
    found = report["attack"]
    assert json.loads((copy / "attack.json").read_text()) == found and (copy / "attack.png").stat().st_size > 5_000
    assert 96 <= found["tokens"] <= 112 and found["step"] == 20 and found["notes"] == []
    for rho in ("0.1", "0.5"):
        rand, fgm, pgd5, pgd20 = (found[name][rho] for name in ("rand", "fgm", "pgd5", "pgd20"))
        assert rand < fgm <= pgd5 <= pgd20 and found["absolute"][rho] == pytest.approx(float(rho) * found["unit"])
    assert list(found["typo"]) == ["0.0", "0.1"] and list(found["word"]) == ["0.0", "0.1"]
    assert found["word"]["0.0"] == found["typo"]["0.0"] and found["segmentation"] > 0
    again = runs.ask("evaluate", *words, **flags, **{"mesh.fsdp": 2, "mesh.data": 4, "train.batch-size": 16})["attack"]
    for name in ("rand", "fgm", "pgd5", "pgd20", "typo", "word"):
        assert again[name] == pytest.approx(found[name], rel=1e-5)
    assert {name: again[name] for name in ("tokens", "typo_scored")} == {
        name: found[name] for name in ("tokens", "typo_scored")
    }


@pytest.mark.parametrize(
    "words, hint",
    [
        (("--attack", "--radii", "0.1", "0"), "--radii 0.1 0.0"),
        (("--attack", "--radii", "-1"), "positive"),
        (("--attack", "--radii", "nan"), "positive"),
        (("--attack", "--typo-rates", "1"), "--typo-rates 1.0"),
        (("--attack", "--typo-rates", "-0.1"), "[0, 1)"),
        (("--attack", "--restarts", "0"), "--restarts"),
        (("--attack", "--attack-tokens", "0"), "--attack-tokens"),
        (("--attack", "--attack-seed", "-1"), "--attack-seed"),
        (("--attack", "--radii", "much"), "--radii"),
        (("--radii", "0.1"), "--attack"),
        (("--task", "--data.store", "a"), "--data.store is not read with --task"),
        (("--lm-eval", "shakespeare_bits", "--data.store", "a"), "--data.store is not read with --lm-eval"),
    ],
)
def test_a_wrong_attack_is_one_line(words, hint, tmp_path):
    code, said = runs.call("evaluate", *words, **{"run-dir": tmp_path})
    assert code == 78 and said.count("\n") == 1 and hint in said


def test_another_tokenizer_is_refused(copy, tmp_path):
    other = runs.prepare(tmp_path / "other", seed=1)
    code, said = runs.call("evaluate", **{"run-dir": copy, "data.store": other})
    assert code == 78 and said.count("\n") == 1 and "another tokenizer" in said and "--data.tokenizer" in said
    (copy / "tokenizer.model").write_bytes((other / "tokenizer.model").read_bytes())
    code, said = runs.call("evaluate", **{"run-dir": copy})
    assert code == 78 and said.count("\n") == 1 and "not the tokenizer" in said


def test_a_damaged_checkpoint_is_passed_over_aloud(copy):
    injured = next(path for path in (copy / "checkpoints" / "20").rglob("*") if path.is_file() and path.stat().st_size)
    injured.write_bytes(injured.read_bytes()[:-1])
    code, said = runs.call("evaluate", **{"run-dir": copy})
    assert code == 0 and "warning: checkpoint 20 is damaged" in said and "fell back to checkpoint 15" in said
    assert runs.ask("evaluate", **{"run-dir": copy})["step"] == 15


@pytest.mark.parametrize("command", ["evaluate", "generate", "report"])
def test_what_is_no_run_is_one_line(command, tmp_path):
    for settings, hint in (({"run-dir": tmp_path}, "pretrain --run-dir"), ({}, "--run-dir")):
        code, said = runs.call(command, **settings)
        assert code == 78 and said.count("\n") == 1 and hint in said


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_a_corrupt_config_is_one_line(command, copy):
    (copy / "config.json").write_text("{")
    code, said = runs.call(command, **{"run-dir": copy})
    assert code == 78 and said.count("\n") == 1 and "config.json" in said


def test_a_run_without_checkpoints_is_one_line(copy):
    runs.forget(copy, 0)
    code, said = runs.call("evaluate", **{"run-dir": copy})
    assert code == 78 and said.count("\n") == 1 and "no checkpoint" in said


def test_any_folder_name_will_do(whole_run, tmp_path):
    """With spaces and characters that are not ASCII, and quoted in the next command."""
    os.symlink(whole_run, tmp_path / "a run, 海 é")
    code, said = runs.call("generate", **{"run-dir": tmp_path / "a run, 海 é", "max-new-tokens": 2})
    assert code == 0 and f"--run-dir '{tmp_path / 'a run, 海 é'}'" in said


def test_a_run_is_evaluated_from_any_folder_if_its_store_lies_above_it(copy, tiny_store, tmp_path, monkeypatch):
    """config.json keeps the store as it was typed."""
    config = json.loads((copy / "config.json").read_text())
    config["data"]["store"] = "stores/st"
    (copy / "config.json").write_text(json.dumps(config))
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "far")
    code, said = runs.call("evaluate", **{"run-dir": copy})
    assert code == 78 and f"stores/st (relative to {tmp_path / 'far'})" in said and "--data.store" in said
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores/st").symlink_to(tiny_store)
    assert runs.ask("evaluate", **{"run-dir": copy})["step"] == 20


def test_figures_that_cannot_be_kept_are_printed(copy, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.replace", refuse)
    report = runs.ask("evaluate", **{"run-dir": copy})
    assert report["bits_per_byte"] > 0 and report["wrote"] == []
    code, said = runs.call("evaluate", **{"run-dir": copy})
    assert code == 0 and "evaluation.json could not be written (Read-only file system)" in said


@pytest.mark.parametrize(
    "flag", ["--train.steps", "--train.eval-batches", "--data.sources", "--train.compile-cache", "--task.generate"]
)
def test_settings_that_evaluate_would_not_follow_are_refused(whole_run, flag):
    code, said = runs.call("evaluate", flag, "5", **{"run-dir": whole_run})
    assert code == 78 and f"{flag} is no setting of this command" in said
