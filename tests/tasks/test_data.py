"""Task data from files: tokenizers, held-out records, fingerprints, epochs, mistakes in one line."""

import json

import numpy as np
import pytest

from chinchilla_jax.config import TaskConfig, TrainConfig
from chinchilla_jax.data.tokenizers import open_tokenizer
from chinchilla_jax.errors import UserError
from chinchilla_jax.finetuning.prompts import prefixed
from chinchilla_jax.tasks import show, splits
from chinchilla_jax.tasks.data import open_task
from chinchilla_jax.tasks.template import CHATML
from tests.tasks.made import LABELLED, MESSAGES, WORDS, lines, of_kind, opened


def test_tokenizers_get_the_marks_that_they_lack(tiny_store, tmp_path):
    found = opened(tiny_store, tmp_path, "a.jsonl", *MESSAGES)
    plain = open_tokenizer(tiny_store)
    assert found.renderer.template == CHATML and len(found.added) == 2 and min(found.added) >= plain.size
    assert found.tokenizer.encode("the sea <|im_end|>") == plain.encode("the sea <|im_end|>")
    assert "[[songs<|im_end|>]]" in "\n".join(show.shown(found, 1)) and "<|im_start|>user" in show.shown(found, 1)[1]


def test_held_out_records_share_no_text(tiny_store, tmp_path):
    twice = [*LABELLED, *LABELLED]
    found = opened(tiny_store, tmp_path, "a.jsonl", *twice, valid_fraction=0.25)
    texts = {record.texts for record in found.valid}
    assert len(found.valid) == 2 * len(texts) == 12 and not texts & {record.texts for record in found.train}
    assert found.task.labels == ("0", "1") and found.task.kind == "labels"


def test_a_fingerprint_is_of_contents(tiny_store, tmp_path):
    same = [opened(tiny_store, tmp_path, name, *LABELLED) for name in ("a.jsonl", "b.jsonl")]
    other = opened(tiny_store, tmp_path, "c.jsonl", *LABELLED[:-1])
    assert same[0].fingerprint == same[1].fingerprint != other.fingerprint


def test_epochs_of_augmented_examples_differ_and_come_back(tiny_store, tmp_path):
    found = opened(tiny_store, tmp_path, "a.jsonl", *LABELLED, sampling=0.3, deletion=0.1)
    first, second = found.items(0), found.items(1)
    assert any(len(a) != len(b) for a, b in zip(first, second))
    assert all((a.parts[0].tokens == b.parts[0].tokens).all() for a, b in zip(first, found.items(0)))
    assert found.batches(TrainConfig(seq_len=64)).at(0).weights.sum() > 0


def test_what_trains_twice_and_what_leaks_is_counted(tiny_store, tmp_path):
    twice = [*LABELLED, LABELLED[0], {**LABELLED[1], "label": 0}]
    same = of_kind(tiny_store, tmp_path, "labels", twice).notes
    assert [any(what in note for note in same) for what in (splits.REPEATED, splits.CONTRADICTED)] == [True, True]
    held = lines(tmp_path, LABELLED[3], {"text": "unheard of", "label": 1}, name="held.jsonl")
    notes = opened(tiny_store, tmp_path, "a.jsonl", *LABELLED, valid=(str(held),)).notes
    assert [note for note in notes if splits.LEAKED in note] and notes[0].startswith("1 ")
    assert any(splits.LEAKED in note for note in same), "one file for both"


def test_balanced_labels_have_the_same_say(tiny_store, tmp_path):
    rare = [{"text": f"wind {i}", "label": "rare" if i % 8 == 0 else "common"} for i in range(64)]
    found = opened(tiny_store, tmp_path, "a.jsonl", *rare, balance=True)
    by = {0: 0.0, 1: 0.0}
    for item in found.first:
        by[int(item.parts[0].targets[-1])] += float(item.parts[0].weights[-1])
    assert by[0] == pytest.approx(by[1], rel=1e-5)


PAIRS = [{"prompt": word, "chosen": "good", "rejected": "bad"} for word in WORDS]
QUESTIONS = [{"context": f"{word} is old", "question": "what?", "answers": ["old"]} for word in WORDS]


@pytest.mark.parametrize(
    "records, task, message",
    [
        (LABELLED[:1], {}, "--task.valid"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], {}, r"a\.jsonl: one label alone .*--task\.label"),
        (
            [{"user": f"u{i}", "items": ["a", "b", "c", "d"]} for i in range(3)],
            {"kind": "items", "core": 0},
            "has pieces of text; leave --from out",
        ),
        ([{"tokens": [word, "b"], "tags": ["O", "PER"]} for word in "ac"], {}, "neither O nor B-TYPE"),
        (MESSAGES, {"language": "Chinese"}, "no code of two or three letters"),
        (MESSAGES, {"template": "alpacca"}, "did you mean alpaca"),
        (MESSAGES, {"balance": True}, "--task.balance True is nothing that --task.kind chat looks at; leave it out"),
        (MESSAGES, {"kind": "chat", "source": "twice"}, "chat has causal, bidirectional; leave it out"),
        ([{"text": word} for word in WORDS], {"source": "bidirectional"}, "text has causal"),
        (PAIRS, {"source": "bidirectional"}, "preference has causal"),
        (QUESTIONS, {"kind": "answer", "swap": 0.1}, "--task.swap: a question about a text is not augmented"),
        (MESSAGES, {"seq_len": 6}, "raise it"),
        (
            [{"talk": i, **row} for i, row in enumerate(LABELLED)],
            {"kind": "choice", "conversation": "talk"},
            "stand alone",
        ),
    ],
)
def test_mistakes_are_one_line(tiny_store, tmp_path, records, task, message):
    with pytest.raises(UserError, match=message):
        opened(tiny_store, tmp_path, "a.jsonl", *records, **task)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_records_to_judge_are_encoded_once_before_anything_is_trained(tiny_store, tmp_path, split):
    """A wrong label among them is said then."""
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": "wind", "label": 1}) + "\n")
    found = opened(tiny_store, tmp_path, "a.jsonl", *LABELLED, **{split: (str(tmp_path / "other.jsonl"),)})
    found.encode_all()
    records = getattr(found, split)
    assert found.judged(records, split) is found.judged(records, split) and len(found.judged(records, split)) == 1
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": "wind", "label": "new"}) + "\n")
    found = opened(tiny_store, tmp_path, "a.jsonl", *LABELLED, **{split: (str(tmp_path / "other.jsonl"),)})
    with pytest.raises(UserError, match=r"other\.jsonl:1 .*label 'new' is none"):
        found.encode_all()


def test_nothing_left_to_look_at_is_one_line(tiny_store, tmp_path):
    found = opened(tiny_store, tmp_path, "a.jsonl", *LABELLED)
    found.encoded = lambda records: []
    with pytest.raises(UserError, match=r"a\.jsonl: no record is left to look at for valid; see what was dropped"):
        found.judged(found.valid, "valid")
    with pytest.raises(UserError, match="the file: no record is left to look at for test"):
        found.judged([], "test")


@pytest.mark.parametrize("more", [{}, {"only": ("1", "2")}, {"balance": True}])
def test_a_test_can_be_judged_alone(tiny_store, tmp_path, more):
    """Read once, and kept whole; labels are those of the run."""
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in LABELLED))
    task = TaskConfig(test=(str(path),), kind="labels", labels=("0", "1", "2"), valid=("gone",), **more)
    found = open_task(task, folder=tiny_store, scratch=tmp_path, seq_len=64, seed=0)
    assert (found.train, found.valid, len(found.test)) == ([], [], 12 if "only" in more else 24)
    assert len(found.judged(found.test, "test")) == len(found.test) and found.task.labels == ("0", "1", "2")


def test_questions_of_a_test_alone_are_counted_once_and_missed_where_no_answer_stands(tiny_store, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text((json.dumps(ALONE["spans"] | {"answers": ["nowhere"]}) + "\n") * 3)
    task = TaskConfig(test=(str(path),), kind="spans")
    found = open_task(task, folder=tiny_store, scratch=tmp_path, seq_len=64, seed=0)
    assert len(found.test) == 3 and [note.split()[0] for note in found.notes] == ["3", "3"]
    assert "which no output can match" in found.notes[0] and "scored by" in found.notes[1]


def test_items_cannot_be_judged_alone(tiny_store, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"user": "u", "items": ["a", "b"]}) + "\n")
    with pytest.raises(UserError, match="items are asked for after training on items; tune first"):
        open_task(TaskConfig(test=(str(path),)), folder=tiny_store, scratch=tmp_path, seq_len=64, seed=0)


ALONE = {
    "labels": {"text": "the sea and the wind", "label": "wet"},
    "tags": {"tokens": ["Ada", "sailed", "the", "sea"], "tags": ["B-PER", "O", "O", "O"]},
    "spans": {"context": "the wind blew over the sea", "question": "what blew over?", "answers": ["the wind"]},
    "preference": {"prompt": "the sea", "chosen": "is deep", "rejected": "is dry"},
    "chat": {"messages": [{"role": "user", "content": "the sea"}, {"role": "assistant", "content": "songs"}]},
    "answer": {"context": "the wind blew over the sea", "question": "what blew over?", "answers": ["the wind"]},
}


BESIDE = {"labels": {"text": "stone over stone", "label": "dry"}}


def from_nothing(folder, kind: str, pieces: int, seq_len: int = 64, **more):
    """Task data of a few records, for a model that starts from no run."""
    file = folder / "records.jsonl"
    rows = [ALONE[kind], BESIDE.get(kind, ALONE[kind])] * 4
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskConfig(kind=kind, train=(str(file),), valid=(str(file),), pieces=pieces)
    return open_task(task, folder=None, scratch=folder, seq_len=seq_len, seed=0, **more)


def test_fewer_pieces_than_asked_are_said(tmp_path):
    few = from_nothing(tmp_path, "labels", 5000)
    assert f"the text supports {few.tokenizer.size:,} pieces, fewer than --task.pieces 5,000" in few.summary()
    enough = from_nothing(tmp_path, "labels", few.tokenizer.size)
    assert not any("fewer than" in line for line in enough.summary())


@pytest.mark.parametrize("kind", ALONE)
def test_a_soft_prompt_stands_before_every_document(kind, tmp_path):
    """In room of its own: nothing of the records is lost, and whatever feeds the model finds it there."""
    soft = from_nothing(tmp_path, kind, 300, soft=3)
    ids = list(soft.soft)
    plain = from_nothing(tmp_path, kind, 300, seq_len=64 - 3 * soft.kind.documents)
    assert ids == list(range(soft.tokenizer.size, soft.tokenizer.size + 3))
    for mine, other in zip(soft.first, plain.first, strict=True):
        assert len(mine) <= 64
        for part, bare in zip(mine.parts, other.parts, strict=True):
            for name, lead in (("tokens", ids), ("targets", [0] * 3), ("weights", [0] * 3)):
                assert getattr(part, name).tolist() == [*lead, *getattr(bare, name).tolist()]
    batch = soft.packed.rows(np.arange(2))
    assert prefixed(batch, tuple(ids)) is batch
    assert (
        (batch.tokens == ids[0]).sum()
        == batch.segments.max(1).sum()
        == (batch.positions == 0)[batch.segments > 0].sum()
    )
    assert show.shown(soft, 8) == show.shown(plain, 8) and soft.fingerprint != plain.fingerprint


@pytest.mark.parametrize("kind", ALONE)
def test_a_tokenizer_of_the_records_is_made(kind, tmp_path):
    data = from_nothing(tmp_path, kind, 300)
    assert 256 < data.tokenizer.size <= 300 and (data.path / "tokenizer.model").exists()
    [first, *_] = data.first
    assert any("sea" in data.tokenizer.decode(part.tokens.tolist()) for part in first.parts)


def test_without_pieces_it_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"--from DIR, or train a model from nothing with --task\.pieces 4000"):
        from_nothing(tmp_path, "tags", 0)


def test_a_tokenizer_that_is_made_gets_the_marks_of_the_template(tmp_path):
    """As rows like all others, since there is no base that lacks them."""
    data = from_nothing(tmp_path, "chat", 300)
    assert data.renderer.template == CHATML and data.added == () and data.path != tmp_path
    assert set(CHATML.marks) <= set(open_tokenizer(data.path).controls)
