"""Tags of words: through pieces and back, by Viterbi, and what of a file breaks the scheme."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.tasks.kinds import tags
from chinchilla_jax.tasks.read import read
from chinchilla_jax.tasks.records import Spans, Tagged, Where
from tests.tasks.kinds.oracle import Oracle, sure, task_data

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks"
HERE = Where("here", 1, 1)


def sentence(words: str, names: str) -> Tagged:
    return Tagged(HERE, tuple(words.split()), tuple(names.split()))


SENTENCES = [
    sentence("the old wind", "O B-PER I-PER"),
    sentence("海 风吹 过 stone", "B-LOC I-LOC B-LOC O"),
    sentence("sea \x07 songs", "B-ORG I-ORG O"),
]


@pytest.mark.parametrize("source", ["causal", "twice", "bidirectional"])
def test_targets_through_pieces_and_back(tiny_store, source):
    data = task_data(tiny_store, "tags", SENTENCES, source=source)
    names = data.task.labels
    assert names == ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    figures, rows = Oracle(data, lambda batch: sure(batch.targets, len(names))).judged()
    assert [row["output"] for row in rows] == [list(record.tags) for record in SENTENCES]
    assert figures["strict_f1"] == figures["lenient_f1"] == figures["word_accuracy"] == 1.0
    first = data.first[0].parts[0]
    assert (first.blocks is not None) == (source == "bidirectional")
    size = len(data.tokenizer.encode("the old wind".replace(" ", "")))
    assert len(first) > size * (2 if source == "twice" else 1)
    assert np.flatnonzero(first.weights)[0] >= (len(first) // 2 if source == "twice" else 0)


def test_words_that_are_cut_are_o_and_stay(tiny_store):
    long = sentence("the old wind " * 30, "O B-PER I-PER " * 30)
    data = task_data(tiny_store, "tags", [long, *SENTENCES], seq_len=64)
    names = data.task.labels
    figures, rows = Oracle(data, lambda batch: sure(batch.targets, len(names))).judged()
    output = rows[0]["output"]
    assert len(output) == 90 and output[:9] == ["O", "B-PER", "I-PER"] * 3 and output[-30:] == ["O"] * 30
    assert 0 < figures["strict_recall"] < 1 and figures["strict_precision"] > 0.9
    assert data.encoder.tally.counts[tags.CUT] == 2, "in training and in validation"


def test_viterbi_is_the_best_of_all_allowed_paths():
    names = ("O", "B-A", "I-A", "B-B", "I-B")
    first, follows = tags.allowed(names)
    draw = np.random.default_rng(0)
    for n in (1, 2, 4):
        for _ in range(20):
            log_p = draw.standard_normal((n, 5))
            paths = [
                path
                for path in itertools.product(range(5), repeat=n)
                if first[path[0]] and all(follows[a, b] for a, b in itertools.pairwise(path))
            ]
            best = max(paths, key=lambda path: sum(log_p[i, tag] for i, tag in enumerate(path)))
            assert tuple(tags.viterbi(log_p, first, follows)) == best
    legal = {(a, b) for a, b in itertools.product(names, repeat=2) if follows[names.index(a), names.index(b)]}
    assert ("B-A", "I-A") in legal and ("I-A", "I-A") in legal and ("O", "I-A") not in legal
    assert ("B-B", "I-A") not in legal and not first[2] and first[1]


def test_outputs_keep_to_the_scheme_and_the_free_ones_are_compared(tiny_store):
    data = task_data(tiny_store, "tags", SENTENCES)
    draw = np.random.default_rng(1)
    noise = {}

    def says(batch):
        return noise.setdefault(batch.tokens.tobytes(), draw.standard_normal((*batch.tokens.shape, 7)))

    figures, rows = Oracle(data, says).judged()
    for row in rows:
        for before, tag in itertools.pairwise(["O", *row["output"]]):
            assert tag[0] != "I" or (before[2:] == tag[2:] and before != "O")
    assert {"strict_f1_unconstrained", "lenient_f1"} <= set(figures)


def test_spans_of_characters_become_tags_of_words():
    record = Spans(HERE, "Dr. Wu visits 北京大学.", ((4, 6, "PER"), (14, 18, "ORG"), (8, 9, "X"), (15, 16, "Y")))
    words, found, blanks, changed = tags.words_of(record)
    assert words == ("Dr", ".", "Wu", "visits", "北", "京", "大", "学", ".") and changed == 2
    assert found == ("O", "O", "B-PER", "B-X", "B-ORG", "I-ORG", "I-ORG", "I-ORG", "O")
    assert blanks == (False, False, True, True, True, False, False, False, False)


def lines(tmp_path, *records):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return [tmp_path / "a.jsonl"]


def test_other_schemes_are_read_and_broken_tags_counted(tmp_path):
    found = read(lines(tmp_path, {"tokens": list("abcde"), "tags": ["S-X", "B-Y", "E-Y", "O", "I-X"]}))
    assert found.records[0].tags == ("B-X", "B-Y", "I-Y", "O", "B-X")
    assert sorted(found.tally.counts.values()) == [1, 2] and "read as B-" in " ".join(found.tally.lines())


SPLITS = [(name, split) for name in ("wnut17", "uner_zh_gsdsimp") for split in ("train", "dev", "test")]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/tasks here")
@pytest.mark.parametrize("name, split", SPLITS)
def test_gold_tags_of_real_sets_come_back(tiny_store, name, split):
    found = read([SHARED / "ner" / name / f"{split}.conll.gz"])
    assert not found.tally.counts
    data = task_data(tiny_store, "tags", found.records[:500], seq_len=2048)
    labels = len(data.task.labels)
    figures, _ = Oracle(data, lambda batch: sure(batch.targets, labels)).judged()
    assert figures["strict_f1"] == figures["word_accuracy"] == 1.0 and not data.encoder.tally.counts
