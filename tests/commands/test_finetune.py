"""The finetune command as a user types it, on a tiny run."""

import io
import json
import math
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from chinchilla_jax.commands import finetune
from chinchilla_jax.config import Config, replace, to_dict
from chinchilla_jax.evaluation import robustness
from chinchilla_jax.evaluation.attack import Attack
from chinchilla_jax.evaluation.attacked import Attacked
from chinchilla_jax.model import transformer
from chinchilla_jax.tasks.kinds import heads
from chinchilla_jax.tasks.kinds.table import KINDS, of_task
from chinchilla_jax.training import best
from chinchilla_jax.training.load import load
from chinchilla_jax.tuning.examine import examples
from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")
LABELS = [
    {"text": f"{'the sea wind' if i % 2 else 'old cold stone'} {i}", "label": "wet" if i % 2 else "dry"}
    for i in range(24)
]
CHAT = [
    {"messages": [{"role": "user", "content": "old songs"}, {"role": "assistant", "content": "over cold stone"}]},
    {"messages": [{"role": "user", "content": "the sea"}, {"role": "assistant", "content": "and wind"}]},
] * 12  # fmt: skip
PAIRS = [{"prompt": f"the {i}", "chosen": " sea and wind", "rejected": " cold stone"} for i in range(24)]
FAST = {"optimizer.peak-lr": 0.01, "train.batch-size": 8, "train.seq-len": 48, "checkpoint.keep": 50}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, records in (("labels", LABELS), ("chat", CHAT), ("pairs", PAIRS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def tune(whole_run, files, tmp_path):
    """tune(name, words, **settings): exit code, what was said, and the folder of a run on that file of examples."""

    def run(name: str, *words: str, run_dir=None, **settings):
        folder = run_dir or tmp_path / name
        told = {"run-dir": folder, "from": whole_run, "task.train": files / f"{name}.jsonl", **FAST, **settings}
        return *runs.call("finetune", *words, **told), folder

    return run


def done(tune, *args, **settings):
    code, said, folder = tune(*args, **settings)
    assert code == 0, said
    return said, folder


# One program for every test of labels: what differs between them is decided on the host.
SHARED = {"train.steps": 12, "train.eval-every": 2, "checkpoint.every": 2, "task.deletion": 0.2, "tune.dropout": 0.1}


@pytest.fixture(scope="module")
def labelled(whole_run, files, tmp_path_factory):
    """A run with a label head and LoRA; to be copied before anything is done to it."""
    folder = tmp_path_factory.mktemp("labels") / "whole"
    told = {"run-dir": folder, "from": whole_run, "task.train": files / "labels.jsonl", **FAST, **SHARED}
    with runs.compiled_once():
        code, said = runs.call("finetune", **told)
    assert code == 0, said
    return folder, said


def test_labels_are_learned_and_the_best_step_is_named(labelled):
    folder, said = labelled
    rows = runs.rows(folder)
    figures = {row["step"]: row["valid_accuracy"] for row in rows if "valid_accuracy" in row}
    assert sorted(figures) == [2, 4, 6, 8, 10, 12] and figures[12] == 1.0
    first = min(step for step, value in figures.items() if value == 1.0)
    assert best.read(folder)["step"] == first and first in runs.saved(folder)
    assert f"best: checkpoint {first} by valid_accuracy" in said and "last: checkpoint 12" in said and "next: " in said
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert {row["reference"] for row in predictions} <= {"wet", "dry"} and len(predictions) == 2
    assert json.loads((folder / "task.json").read_text())["labels"] == ["dry", "wet"]
    assert all(row["records"] > 0 for row in rows if "loss" in row) and "bits_per_byte" not in rows[0]
    leaves = runs.leaves(folder, 12)
    assert "params/heads/labels/kernel" in leaves and not any("params/blocks" in name for name in leaves)
    config = runs.config(folder)
    assert (config.tune.method, config.task.kind, config.optimizer.weight_decay) == ("lora", "labels", 0.0)
    assert "report.png" in (folder / "report.md").read_text() and (folder / "report.png").exists()


def test_evaluate_does_the_task_on_other_examples(labelled, files, tmp_path, whole_run):
    folder = shutil.copytree(labelled[0], tmp_path / "run")
    found = runs.ask("evaluate", "--task", **{"run-dir": folder, "task.test": files / "labels.jsonl"})
    assert found["records"] == len(LABELS) and found["test_accuracy"] == 1.0 and 0 <= found["test_ece"] < 1
    rows = [json.loads(line) for line in (folder / "evaluated_predictions.jsonl").read_text().splitlines()]
    assert [row["reference"] for row in rows] == [row["label"] for row in LABELS]
    assert set(rows[0]) == {"record", "input", "output", "reference", *KINDS["labels"].columns}
    assert "## By label" in (folder / "evaluated.md").read_text()
    (tmp_path / "new.jsonl").write_text('{"text": "old", "label": "warm"}\n{"text": "sea", "label": "wet"}\n')
    mistakes = (
        ({"run-dir": folder, "task.test": tmp_path / "new.jsonl"}, "'warm' is none of the training set's"),
        ({"run-dir": whole_run, "task.test": files / "labels.jsonl"}, "has no head for labels"),
        ({"run-dir": whole_run}, "tuned on no task"),
    )
    for settings, hint in mistakes:
        code, said = runs.call("evaluate", "--task", **settings)
        assert code == 78 and said.count("error:") == 1 and hint in said, said


def test_a_soft_prompt_is_judged_where_it_answers(whole_run, files, tmp_path):
    """Texts that share rows are judged as each is alone, and with them no target is cut off."""
    told = {"run-dir": tmp_path / "run", "from": whole_run, "task.train": files / "labels.jsonl", "train.steps": 2}
    code, said = runs.call(
        "finetune", **{**FAST, **told, "tune.method": "prompt", "tune.prompt": 5, "train.seq-len": 64}
    )
    assert code == 0, said
    alone, rows = [], LABELS[:3]
    for name, texts in (("all", rows), *((str(n), [row]) for n, row in enumerate(rows))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
        found = runs.ask("evaluate", "--task", **{"run-dir": tmp_path / "run", "task.test": tmp_path / f"{name}.jsonl"})
        answers = [json.loads(line) for line in (tmp_path / "run/evaluated_predictions.jsonl").read_text().splitlines()]
        alone.append((answers, found["test_loss"]))
    (together, loss), *single = alone
    for row, ([answer], _) in zip(together, single, strict=True):
        assert row["output"] == answer["output"] and row["probability"] == pytest.approx(
            answer["probability"], abs=1e-3
        )
    assert loss == pytest.approx(np.mean([loss for _, loss in single]), rel=1e-4)


def test_evaluate_attacks_the_task(labelled, files, tmp_path):
    """Clean figures are the plain ones, stronger attacks do more, a huge one leaves nothing right."""
    folder = shutil.copytree(labelled[0], tmp_path / "run")
    how = {"run-dir": folder, "task.test": files / "labels.jsonl", "attack-tokens": 60, "restarts": 1}
    found = runs.ask("evaluate", "--task", "--attack", "--radii", "0.01", "30", "--typo-rates", "0.3", **how)
    attack = found["attack"]
    every = -(-len(LABELS) // attack["records"])
    assert 1 < every < len(LABELS) and attack["clean"]["right"][0] == attack["clean"]["accuracy"] == 1.0
    small, large = ([attack[name][rho]["loss"] for name in ("fgm", "pgd5", "pgd20")] for rho in ("0.01", "30.0"))
    assert small == pytest.approx(sorted(small), rel=robustness.TOLERANCE)
    assert attack["clean"]["loss"] < small[0] and max(small) < min(large)
    assert attack["pgd20"]["30.0"]["accuracy"] == 0.0 and attack["pgd20"]["0.01"]["accuracy"] == 1.0
    assert attack["typo"]["0.3"]["loss"] != attack["clean"]["loss"]
    assert "## Under attack" in (folder / "evaluated.md").read_text()


def test_the_attack_on_a_task_is_that_on_its_embeddings(labelled):
    """The loss under attack is the one that the model has where delta is added to its embeddings."""
    loaded = load(runs.config(labelled[0]), str(labelled[0]), make=of_task)
    with tempfile.TemporaryDirectory() as scratch:
        data = examples(runs.config(labelled[0]), loaded, labelled[0], Path(scratch), False)
        judge = Attacked(loaded.program, data, data.valid, attack=Attack(restarts=1), at=("fgm", 0.5))
    found, nats, cfg = judge(loaded.params), 0.0, loaded.program.config.model
    for batch in judge.batches:
        delta_BLD = judge.delta(loaded.params, judge.likelihood.placed(batch), 0)
        assert float(np.abs(delta_BLD).max()) > 0
        hidden_BLD = transformer.apply(loaded.params, batch, cfg, delta_BLD=jax.device_get(delta_BLD))
        log_p_BLC = jax.nn.log_softmax(heads.logits(hidden_BLD, heads.rows(loaded.params)))
        nats -= sum(float(log_p_BLC[row, at, batch.targets[row, at]]) for row, at in np.argwhere(batch.weights > 0))
    assert found["loss"] == pytest.approx(nats / len(judge.items), rel=1e-5)


FIVE = {
    "tags": [{"tokens": ["the", "sea", "wind"], "tags": ["O", "B-X", "I-X"]}, {"tokens": ["old"], "tags": ["O"]}],
    "multilabel": [{"text": "the sea", "label": ["wet", "cold"]}, {"text": "old stone", "label": ["cold"]}],
    "spans": [
        {"context": "the old wind", "question": "what?", "answers": {"text": ["old"], "answer_start": [4]}},
        {"context": "over the sea", "question": "who?", "answers": [], "is_impossible": True},
    ],
}


@pytest.mark.parametrize("kind", FIVE)
def test_a_few_records_of_every_kind_go_through(tune, tmp_path, kind):
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(record) + "\n" for record in FIVE[kind] * 3))
    settings = {"task.train": tmp_path / "few.jsonl", "task.valid": tmp_path / "few.jsonl", "tune.method": "head"}
    said, folder = done(tune, kind, **settings, **{"train.steps": 2, "train.eval-every": 2})
    row = KINDS[kind]
    assert runs.config(folder).task.kind == kind and f"by valid_{row.metric}" in said
    figures = runs.rows(folder)[-1]
    assert {f"valid_{name}" for name in row.figures} <= set(figures) and math.isfinite(figures["valid_loss"])
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and set(rows[0]) == {"record", "input", "output", "reference", *row.columns}
    assert "## By length" in (folder / "report.md").read_text()


def test_resumed_runs_are_the_same_to_the_byte(labelled, tune, tmp_path):
    whole, _ = labelled
    part = shutil.copytree(whole, tmp_path / "part")
    runs.forget(part, 6)
    (part / "best.json").unlink()
    done(tune, "labels", run_dir=part, **SHARED)
    runs.assert_same_run(part, whole, 12)
    assert best.read(part) == best.read(whole)
    again, _ = done(tune, "labels", run_dir=part, **SHARED, **{"from": f"{runs.config(part).tune.base}/"})
    assert "nothing to do" in again
    file = tmp_path / "own.json"  # which says little; the rest is the run's own
    file.write_text(json.dumps({"task": {"deletion": 0.2}, "tune": {"method": "lora", "dropout": 0.1}}))
    again, _ = done(tune, "labels", "--config", str(file), run_dir=part, **SHARED)
    assert "nothing to do" in again
    code, said, _ = tune("chat", run_dir=part, **SHARED)
    assert code == 78 and said.count("error:") == 1


def test_early_stopping_ends_and_stays_ended_and_keeps_the_best(tune):
    settings = {**SHARED, "task.patience": 2, "checkpoint.keep": 1}
    said, folder = done(tune, "labels", **settings)
    last, first = max(row["step"] for row in runs.rows(folder)), best.read(folder)["step"]
    assert last < 12 and last - first == 4 and set(runs.saved(folder)) == {first, last}
    assert f"last: checkpoint {last}" in said
    again, _ = done(tune, "labels", **settings)
    assert "ended early" in again


def test_show_and_dry_run_train_nothing(tune):
    said, folder = done(tune, "chat", "--show", "2")
    assert "[[over cold stone<|im_end|>]]" in said and not folder.exists()
    said, folder = done(tune, "labels", "--dry-run", **SHARED)
    assert "parameters train" in said and "GB a device" in said and not folder.exists()


def test_a_memorised_answer_stops_by_itself(tune, files, monkeypatch):
    """And control pieces that the base lacked are learned with it; the conversation keeps its ids, also when typed."""
    settings = {"tune.method": "full", "train.steps": 60, "task.max-new-tokens": 12, "train.eval-every": 60}
    said, folder = done(tune, "chat", **settings, **{"task.valid": files / "chat.jsonl", "task.generate": 4})
    assert "control pieces added" in said
    row = runs.rows(folder)[-1]
    assert row["valid_stopped"] == row["valid_exact"] == 1.0
    words = ("--chat", "--prompt", "old songs", "--prompt", "the sea")
    how = {"run-dir": folder, "temperature": 0, "max-new-tokens": 12}
    found = runs.ask("generate", *words, **how)
    assert found["completions"][0] == {"prompt": "old songs", "text": "over cold stone"}
    assert len(found["ids"]) > 20 and (folder / "chat_template.jinja").read_text().count("generation %}") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("old songs\n\nthe sea\n"))
    code, said = runs.call("generate", "--chat", **how)
    assert code == 0 and "over cold stone\n" in said and "nothing was said" in said
    assert said.count("that the model is meant for") == 1, "the second answer may go beyond it"


def test_both_directions_and_fresh_rows_under_an_adapter(tune):
    settings = {"task.source": "bidirectional", "train.steps": 4, "task.generate": 2, "task.max-new-tokens": 4}
    _, folder = done(tune, "chat", **settings, **{"train.eval-every": 4})
    config = runs.config(folder)
    assert config.objective.positions == "trained", "a prompt has no loss"
    assert config.tune.rows and "params/rows/embed/table" in runs.leaves(folder, 4)
    assert all(math.isfinite(loss) for loss in runs.losses(folder).values())


def test_preference_starts_at_ln_2_and_learns(tune):
    steps = {"train.steps": 12, "train.seq-len": 64, "train.eval-every": 12}
    said, folder = done(tune, "pairs", **steps)
    rows = [row for row in runs.rows(folder) if "loss" in row]
    assert runs.config(folder).task.reference == "stored"
    stored = np.array(json.loads((folder / "reference.json").read_text())["scores"])
    assert stored.shape == (22, 2) and (stored < 0).all()
    _, other = done(tune, "pairs", run_dir=folder.parent / "other", **steps, **{"task.reference": "computed"})
    assert list(runs.losses(other).values()) == pytest.approx(list(runs.losses(folder).values()), rel=1e-4)
    assert not (other / "reference.json").exists()
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and rows[0]["margin"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["loss"] < 0.6 and rows[-1]["margin"] > 0 and rows[-1]["preferred"] == 1.0
    assert "valid_preferred 1.0000" in said


MISTAKES = {
    "field": ({"task.label": "lable"}, "no such field"),
    "kind": ({"task.kind": "chat"}, "no known format"),
    "template": ({"task.template": "chatlm"}, "did you mean chatml"),
    "metric": ({"task.metric": "acuracy"}, "accuracy"),
    "file": ({"task.train": "nothing.jsonl"}, "no such file"),
    "labels": ({"task.labels": "wet"}, "one label alone"),
    "base": ({"from": "nowhere"}, "holds no run to start from"),
    "shape": ({"model.d-model": 64}, "the model is that of"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(tune, name):
    settings, hint = MISTAKES[name]
    code, said, folder = tune("labels", **settings)
    assert code == 78 and said.count("error:") == 1 and hint in said and "Traceback" not in said, said
    assert not folder.exists()


@pytest.mark.parametrize("method, sparse, expected", [("full", True, 1), ("full", False, 0), ("lora", True, 0)])
def test_all_weights_of_a_sparse_base_are_said_to_become_dense(tmp_path, method, sparse, expected):
    base = tmp_path / "base"
    base.mkdir()
    made = {"sparsity.method": "magnitude"} if sparse else {}
    (base / "config.json").write_text(json.dumps(to_dict(replace(Config(), made))))
    tuned = replace(Config(), {"tune.base": str(base), "tune.method": method})
    said = finetune.warnings(tuned, tmp_path / "run")
    assert len(said) == expected and all("--tune.method lora" in line for line in said)


def test_a_head_that_stays_behind_is_said(tmp_path):
    for kind, expected in (("labels", 1), ("chat", 0)):
        base = tmp_path / kind
        base.mkdir()
        own = replace(Config(), {"task.kind": kind, "task.labels": ("wet", "dry")})
        (base / "config.json").write_text(json.dumps(to_dict(own)))
        said = finetune.warnings(replace(Config(), {"tune.base": str(base), "tune.method": "lora"}), tmp_path / "run")
        assert len(said) == expected and all("has a head for labels, which stays behind" in line for line in said)
