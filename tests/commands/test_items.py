"""Sequential recommendation as a user types it: from a file of events to a ranked catalogue, without a base."""

import json

import numpy as np
import pytest

from chinchilla_jax.data.tokenizers import open_tokenizer
from tests import runs

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
def trained(tmp_path_factory):
    """A run on such events, and what was said."""
    folder = tmp_path_factory.mktemp("items")
    (folder / "events.inter").write_text(events())
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


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"task.core": 60}, "no user and item have 60 events each"),
        ({"task.split": "time", "task.test": "later.inter"}, "leave it out, or leave --task.valid and --task.test out"),
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
