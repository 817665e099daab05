"""Sequential recommendation as a user types it: from a file of events to a ranked catalogue, without a base."""

import json

import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.tasks.data import open_task
from chinchilla_jax.tasks.kinds import items
from chinchilla_jax.tasks.kinds.table import kind_of
from tests import runs

pytestmark = pytest.mark.usefixtures("compiled_once")

FAST = {
    "model.layers": 1, "model.d-model": 32, "model.heads": 2, "model.head-dim": 12, "model.d-ff": 48,
    "optimizer.peak-lr": 0.02, "optimizer.warmup-steps": 2, "train.steps": 30, "train.seq-len": 8,
    "train.batch-size": 16, "train.eval-every": 15, "checkpoint.every": 15,
}  # fmt: skip
ITEMS = 14


def events(users: int = 48, length: int = 11) -> str:
    """Every user goes through the items in a circle, each from a place of his own; with a column nobody asks for."""
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(users):
        lines += [f"u{user}\t{(user + i) % ITEMS}\t5\t{100 * i + user % 7}" for i in range(length)]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """A run on such events, and what was said."""
    folder = tmp_path_factory.mktemp("items")
    (folder / "events.inter").write_text(events())
    with runs.caching(cache):
        code, said = runs.call(
            "finetune",
            **{"run-dir": folder / "run", "task.train": folder / "events.inter", "task.kind": "items", **FAST},
        )
    assert code == 0, said
    return folder, said


def test_a_circle_is_learned_from_scratch(trained):
    folder, said = trained
    found = json.loads((folder / "run" / "finetune.json").read_text())
    assert found["test"]["test_hr10"] == 1.0 and found["test"]["test_mrr"] > 0.9 > found["test"]["test_popular_mrr"]
    assert found["metric"] == "valid_ndcg10" and f"{ITEMS} items" in said
    rows = [json.loads(line) for line in (folder / "run" / "test_predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 48 and all(row["output"].split()[row["rank"]] == row["reference"] for row in rows)
    assert np.mean([row["rank"] == 0 for row in rows]) > 0.8
    assert open_tokenizer(folder / "run").encode("3 4") == [4, 5]


def test_a_run_on_items_goes_on_and_generates(trained):
    """Like any other run: nothing is left to do, `generate` continues a history, an unknown item is one line."""
    folder, _ = trained
    told = {"run-dir": folder / "run"}
    code, said = runs.call("finetune", **told)
    assert code == 0 and "nothing to do" in said, said
    found = runs.ask("generate", **told, prompt="3 4 5 6", temperature=0, **{"max-new-tokens": 3})
    assert found["completions"][0]["text"].split() == ["7", "8", "9"]
    code, said = runs.call("generate", **told, prompt="3 900", **{"max-new-tokens": 1})
    assert code == 78 and "item 900 is none of the 14" in said and said.count("error:") == 1


def opened(folder, *histories, valid=(), limit=8, **task):
    """Task data of histories as JSON lines, without a run."""
    for name, some in (("train", histories), ("valid", valid)):
        lines = (json.dumps({"user": str(i), "items": list(letters)}) for i, letters in enumerate(some))
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    files = {"train": (str(folder / "train.jsonl"),), **({"valid": (str(folder / "valid.jsonl"),)} if valid else {})}
    config = TaskConfig(kind="items", core=task.pop("core", 0), **files, **task)
    return open_task(config, folder=None, scratch=folder, seq_len=limit, seed=0)


def test_every_item_is_predicted_once_and_what_is_asked_is_not_trained(tmp_path):
    data = opened(tmp_path, "abcdefghijkl", "lkjihgfedcba", "abc", limit=4)
    trained = [part for item in data.first for part in item.parts]
    assert sum(part.weights.sum() for part in trained) == 10 + 10 + 0
    for record in (0, 1):
        own = [part for item in data.first if item.record == record for part in item.parts]
        targets = np.concatenate([part.targets[part.weights > 0] for part in own])
        ids = [data.tokenizer.known(letter) for letter in data.train[record].items]
        assert sorted(targets) == sorted(ids) and all(len(part.tokens) <= 4 for part in trained)
    for item, record in zip(data.encoded(data.valid), data.valid):
        [part] = item.parts
        assert part.weights.tolist() == [0.0] * (len(part) - 1) + [1.0]
        assert part.targets[-1] == data.tokenizer.known(record.items[-1])


def test_unknown_items_and_lonely_users_are_counted(tmp_path):
    data = opened(tmp_path, "abcd", "bcda", "a", valid=("abz", "azb", "z"))
    held = data.encoded(data.valid)
    assert [item.record for item in held] == [1] and len(data.valid) == 2
    assert data.encoder.tally.counts[items.MISSED] == 1 and data.encoder.tally.counts[items.UNSEEN] == 1
    assert any("one item alone" in line for line in data.notes)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"task.core": 60}, "no user and item have 60 events each"),
        ({"task.source": "bidirectional"}, "items has causal"),
        ({"task.metric": "hr100"}, "did you mean hr10"),
        ({"task.train": "builtin:movielense"}, "did you mean movielens"),
        ({"task.kind": "chat"}, "no known format"),
    ],
)
def test_mistakes_are_one_line(trained, tmp_path, settings, hint):
    told = {"task.train": trained[0] / "events.inter", "task.kind": "items", "run-dir": tmp_path / "no", **settings}
    code, said = runs.call("finetune", **FAST, **told)
    assert code == 78 and hint in said and said.count("error:") == 1 and "Traceback" not in said, said


def test_a_split_by_time_needs_times(tmp_path):
    with pytest.raises(Exception, match="no times"):
        opened(tmp_path, "abcd", "bcda", split="time")
    assert kind_of("items").metric == "ndcg10"
