"""Whether a run may go on in its directory: settings by name, another store, a corrupt config.json."""

import json
import re
import shutil

import pytest

from chinchilla_jax import config as settings
from chinchilla_jax.config import Config
from chinchilla_jax.errors import UserError
from chinchilla_jax.training import resume
from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_changed_settings_are_refused_by_name(copy, tiny_store):
    code, said = runs.pretrain(copy, tiny_store, **{"optimizer.peak-lr": 0.001, "train.seed": 5})
    assert code == 78 and said.count("\n") == 1
    assert "optimizer.peak_lr was 0.003 and is 0.001" in said and "train.seed was 0 and is 5" in said
    code, said = runs.pretrain(copy, tiny_store, "--allow-changes", **{"model.d-ff": 52})
    assert code == 78 and "does not fit the model" in said and said.count("error:") == 1


def test_a_run_goes_on_beyond_its_end_when_allowed(copy, tiny_store):
    assert runs.pretrain(copy, tiny_store, **{"train.steps": 22})[0] == 78
    runs.trained(copy, tiny_store, "--allow-changes", **{"train.steps": 22, **runs.SILENT})
    assert list(runs.losses(copy)) == list(range(1, 23)) and runs.saved(copy)[-1] == 22


def test_harmless_settings_may_change(copy, whole_run, tiny_store):
    runs.forget(copy, 15)
    runs.trained(
        copy, tiny_store, **{"checkpoint.every": 3, "checkpoint.keep": 1, "train.eval-every": 9, **runs.SILENT}
    )
    assert runs.saved(copy) == [20] and runs.leaves(copy, 20) == runs.leaves(whole_run, 20)
    assert runs.losses(copy) == runs.losses(whole_run)


@pytest.mark.parametrize("text, tokenizer", [(1, None), (1, "own")], ids=["tokenizer", "data"])
def test_another_store_is_refused(copy, tiny_store, tmp_path, text, tokenizer):
    runs.forget(copy, 15)
    runs.write_text(tmp_path / "text", text)
    settings = {"data.sources": tmp_path / "text", "data.store": tmp_path / "store", "data.vocab-size": 320}
    given = {"data.tokenizer": tiny_store / "tokenizer.model"} if tokenizer else {}
    assert runs.call("prepare", **settings, **given, **{"data.valid-fraction": 0.15})[0] == 0
    code, said = runs.pretrain(copy, tmp_path / "store")
    assert code == 78 and said.count("error:") == 1
    assert ("another data" if tokenizer else "another tokenizer") in said
    assert runs.saved(copy) == [5, 10, 15]


@pytest.mark.parametrize("content", ["{", "[]", '"\\'])
def test_a_corrupt_config_of_the_run_is_one_line(copy, tiny_store, tmp_path, content):
    shutil.copy(copy / "config.json", tmp_path / "mine.json")
    (copy / "config.json").write_text(content)
    code, said = runs.call("pretrain", **{"config": tmp_path / "mine.json", "run-dir": copy})
    assert code == 78 and said.count("\n") == 1 and "config.json" in said


def test_what_is_harmless_is_a_setting():
    """A prefix that no setting has any more would let a new one of that name pass."""
    names = settings.differences(flat_settings("a"), flat_settings("b"))
    for prefix in resume.HARMLESS:
        assert any(name.startswith(prefix) for name in names), prefix


def flat_settings(value: str) -> dict:
    """The names of all settings, each with the same value."""

    def one(part):
        return {name: one(rest) if isinstance(rest, dict) else value for name, rest in part.items()}

    return one(settings.to_dict(Config()))


MADE = {"attack": {"adversarial.method": "fgm"}, "copies": {"corruption.share": 0.1, "corruption.copies": 0.5},
        "in place": {"corruption.share": 0.1}, "": {}}  # fmt: skip


@pytest.mark.parametrize("changed, made, refused", [
    ({"mesh.fsdp": (1, 8), "data.store": ("a", "b"), "train.microbatches": (1, 4)}, "", None),
    ({"train.microbatches": (1, 4)}, "in place", None),
    ({"tune.base": ("runs/base", "./runs/more/../base/")}, "", None),
    ({"tune.base": ("runs/base", "runs/other")}, "", "tune.base was 'runs/base' and is 'runs/other'; do this"),
    ({"train.microbatches": (1, 4)}, "attack", "train.microbatches was 1 and is 4"),
    ({"train.microbatches": (1, 4)}, "copies", "train.microbatches was 1 and is 4"),
    ({"optimizer.peak_lr": (0.1, 0.2), "mesh.fsdp": (1, 8)}, "", "optimizer.peak_lr was 0.1 and is 0.2; do this"),
    ({"task.kind": ("a", "b"), "task.train": ("x", "y")}, "", "task.kind was 'a' and is 'b'; do this"),
    ({"train.batch_size": (1, 2), "model.layers": (3, 4)}, "", "batch_size was 1 and is 2; model.layers was 3"),
])  # fmt: skip
def test_settings_that_would_make_another_run_are_listed(tmp_path, changed, made, refused):
    """Where rows are attacked or copied, which ones are is decided in each microbatch."""
    config = settings.replace(Config(), MADE[made])
    if refused is None:
        resume.refuse_harmful(tmp_path, changed, config, "do this")
        return
    with pytest.raises(UserError, match=re.escape(refused)) as error:
        resume.refuse_harmful(tmp_path, changed, config, "do this")
    assert "mesh" not in str(error.value) and "task.train" not in str(error.value)


def test_the_end_of_a_run_and_its_last_figures(tmp_path):
    assert not resume.ended(tmp_path, 4) and resume.last_metrics(tmp_path) == {}
    for name, rows in (
        ("events", [{"event": "saved", "step": 4}, {"event": "end", "step": 4}, {"event": "begin"}]),
        (
            "metrics",
            [{"step": 3, "loss": 2.0, "sample": "old"}, {"step": 4, "loss": 1.0}, {"step": 4, "valid_loss": 3.0}],
        ),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert resume.ended(tmp_path, 4) and not resume.ended(tmp_path, 5)
    assert resume.last_metrics(tmp_path) == {"step": 4, "loss": 1.0, "valid_loss": 3.0}
