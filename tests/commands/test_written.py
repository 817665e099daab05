"""Tasks that the language model answers in words: translation by beam, labels by their words, as a user types them."""

import json

import pytest

from tests import runs

pytest.importorskip("sacrebleu")
PAIRS = [("the sea", "wind"), ("old songs", "cold stone"), ("bright wind", "songs over"), ("cold", "sea")] * 6
LABELS = [("the sea wind", "over"), ("old cold stone", "bright songs")] * 8
FAST = {
    "optimizer.peak-lr": 0.01, "train.batch-size": 8, "train.seq-len": 48, "tune.method": "full", "train.steps": 60,
    "train.eval-every": 60, "checkpoint.every": 60,
}  # fmt: skip


def tuned(whole_run, folder, kind: str, rows, **settings):
    """Figures, what was said, and the run, of a file of two columns that is validated on itself."""
    file = folder / f"{kind}.tsv"
    file.write_text("".join(f"{a}\t{b}\n" for a, b in rows))
    told = {"run-dir": folder / kind, "from": whole_run, "task.train": file, "task.valid": file, "task.kind": kind}
    code, said = runs.call("finetune", **told, **FAST, **settings)
    assert code == 0, said
    return json.loads((folder / kind / "finetune.json").read_text())["best"], said, folder / kind


def test_memorised_translations_by_beam(whole_run, tmp_path):
    settings = {"task.beam": 2, "task.generate": 4, "task.max-new-tokens": 12}
    settings |= {"task.test": tmp_path / "translation.tsv"}
    best, said, folder = tuned(whole_run, tmp_path, "translation", PAIRS, **settings)
    assert best["valid_exact"] == best["valid_stopped"] == 1.0 and best["valid_empty"] == 0.0
    assert best["valid_chrf2"] == pytest.approx(100.0) and "template lines" in said
    assert 0 < best["valid_bits_per_byte"] < 1
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["output"] for row in rows] == [PAIRS[n * len(PAIRS) // 4][1] for n in range(4)]
    tested = (folder / "test_predictions.jsonl").read_text().splitlines()
    assert len(tested) == len(PAIRS) and "test_bleu" in said  # all of them, where validation looks at four
    assert "tok:13a" in (folder / "report.md").read_text()


def test_labels_by_their_words(whole_run, tmp_path):
    """Two bare columns are text and label; no head is added, and the run still writes text."""
    best, _, folder = tuned(whole_run, tmp_path, "choice", LABELS, **{"task.choose": "mean"})
    assert best["valid_accuracy"] == 1.0
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert {row["output"] for row in rows} == {"over", "bright songs"} and rows[0]["probability"] > 0.6
    assert not any("heads" in name for name in runs.leaves(folder, 60))
