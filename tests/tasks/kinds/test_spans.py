"""Spans of contexts: through pieces and windows and back, no answer by threshold, and what stands nowhere."""

import json
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds import spans
from chinchilla_jax.tasks.metrics import answers
from chinchilla_jax.tasks.read import read
from chinchilla_jax.tasks.records import Question, Where
from tests.tasks.kinds.oracle import Oracle, task_data

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks" / "qa"
HERE = Where("here", 1, 1)
LONG = "old songs over cold stone and wind " * 12 + "the naïve sea carries bright stone " + "over wind and sea " * 12


def question(context: str, *texts: str, asked: str = "who?") -> Question:
    return Question(HERE, context, asked, tuple((text, context.find(text)) for text in texts))


QUESTIONS = [
    question("the old wind, carries songs.", "old wind"),
    question(LONG, "naïve sea"),
    question("海风吹过 the stone", "风吹", "海风"),
    question("the sea", asked="no answer?"),
]


def certain(batch):
    """Log-probabilities that find the answer."""
    hits = np.stack([batch.targets & spans.START, batch.targets & spans.END], -1) > 0
    return np.where(hits, -0.1, -20.0)


@pytest.mark.parametrize("source", ["causal", "twice", "bidirectional"])
def test_answers_through_windows_and_back(tiny_store, source):
    data = task_data(tiny_store, "spans", QUESTIONS, seq_len=160, source=source, style="squad")
    windows = [sum(item.record == number for item in data.first) for number in range(4)]
    assert windows[0] == windows[2] == windows[3] == 1 < windows[1]
    weights = [sum(item.parts[0].weights.sum() for item in data.first if item.record == n) for n in range(4)]
    assert weights == pytest.approx([1, 1, 1, 1]) and max(map(len, data.first)) <= 160
    figures, rows = Oracle(data, certain).judged()
    assert [row["output"] for row in rows] == ["old wind", "naïve sea", "风吹", ""]
    assert figures["exact"] == figures["f1"] == figures["has_answer_f1"] == figures["no_answer_f1"] == 100.0
    rows = Oracle(data, certain, {"null_threshold": -100.0}).judged()[1]
    assert [row["output"] for row in rows] == [""] * 4, "the threshold of validation counts"
    figures, rows = Oracle(data, certain, name="test").judged()
    assert all(row["output"] for row in rows) and "null_threshold" not in figures, "a test sets none of its own"


def test_a_window_without_the_answer_points_at_its_last_token(tiny_store):
    data = task_data(tiny_store, "spans", QUESTIONS[1:2], seq_len=80)
    ends = []
    for item in data.first:
        part = item.parts[0]
        [begin] = np.flatnonzero(part.targets & spans.START)
        ends.append(begin == len(part) - 1)
        assert part.weights[begin] > 0 and (part.targets[: begin + 1] & spans.CANDIDATE)[-1]
    assert 0 < sum(ends) < len(ends)


def test_the_threshold_is_the_best_of_all():
    draw = np.random.default_rng(0)
    for _ in range(50):
        n = int(draw.integers(1, 12))
        gaps, full, empty = draw.standard_normal(n), draw.random(n), draw.integers(0, 2, n).astype(float)
        cut = spans.threshold(gaps, full, empty)
        found = np.where(gaps > cut, empty, full).mean()
        tried = [np.where(gaps > t, empty, full).mean() for t in [-9, 9, *gaps]]
        assert found == pytest.approx(max(tried), abs=1e-12)


def test_the_likeliest_span_is_the_best_of_all_pairs():
    draw = np.random.default_rng(1)
    for longest in (1, 3, 9):
        log_p = draw.standard_normal((7, 2))
        pairs = [(log_p[i, 0] + log_p[j, 1], i, j) for i in range(7) for j in range(i, min(7, i + longest))]
        assert spans.likeliest(log_p, longest) == pytest.approx(max(pairs))


def test_answers_that_stand_nowhere_are_counted_and_kept_as_references(tiny_store, tmp_path):
    lines = [
        {"context": f"the sea {i}", "question": "what?", "answers": ["sea" if i % 2 else "lake"]} for i in range(8)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read([tmp_path / "a.jsonl"])
    task = task_data(tiny_store, "spans", QUESTIONS[:1]).task
    train, valid, _ = spans.divide(task, found.records, found.records, [], 0, found.tally)
    assert len(train) == 4 and len(valid) == 8
    assert found.tally.counts[spans.NOWHERE] == found.tally.counts[spans.LACKING] == 4
    assert any("SQuAD's script" in line for line in found.tally.lines())
    with pytest.raises(UserError, match="no answer stands"):
        spans.divide(task, found.records[:1], found.records, [], 0, found.tally)


SETS = {"xquad/xquad.en.json.gz": 1.0, "xquad/xquad.zh.json.gz": 1.0, "cmrc2018/dev.json.gz": 0.995}


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/tasks here")
@pytest.mark.parametrize("name", SETS)
def test_answers_of_real_sets_come_back(tiny_store, name):
    """A question counts where any of its references, whose places the file gives, comes back; one in twelve."""
    tokenizer, right = open_tokenizer(tiny_store), []
    for record in read([SHARED / name]).records[::12]:
        whole = spans.context_of(tokenizer, record.context)
        told = [(text, start) for text, start in record.answers if start >= 0]
        said = [whole.text(record.context, *whole.between(start, start + len(text))) for text, start in told]
        texts = [text for text, _ in record.answers]
        right.append(any(answers.best("cmrc", one, texts)[0] and one in texts for one in said))
    assert np.mean(right) >= SETS[name], np.mean(right)
