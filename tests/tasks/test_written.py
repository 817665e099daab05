"""What the kinds that answer in words make of records: prompts, references, labels as endings; and their scores."""

import json

import pytest

from chinchilla_jax.config import TaskConfig
from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.data import open_task
from chinchilla_jax.tasks.kinds import answer, choice, summary
from chinchilla_jax.tasks.kinds.chat import references
from chinchilla_jax.tasks.metrics import extras
from chinchilla_jax.tasks.read import read

pytest.importorskip("rouge_score")


def opened(base, folder, kind: str, records: list[dict], limit: int = 40, **task):
    """Task data of some records, with the tokenizer of a tiny run."""
    file = folder / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = TaskConfig(kind=kind, train=(str(file),), valid=(str(file),), **task)
    return open_task(config, folder=base, scratch=folder, seq_len=limit, seed=0)


def test_a_summary_keeps_the_beginning_and_all_references(whole_run, tmp_path):
    words = " ".join(f"{word} {i}" for i, word in enumerate(["the sea", "old wind", "cold stone"] * 9))
    data = opened(whole_run, tmp_path, "summary", [{"document": [words], "summary": ["sea", "wind", "sea"]}])
    [part] = data.first[0].parts
    spelled = data.tokenizer.decode(part.tokens.tolist())
    assert (
        spelled.startswith("the sea 0")
        and len(part) <= 40
        and part.weights.sum() == len(data.tokenizer.encode("sea")) + 1
    )
    assert references(data.train[0]) == ("sea", "wind", "sea")
    ids, blocks = data.encoder.prompt(data.train[0].turns[:1])
    assert len(ids) == 40 == len(blocks) and data.tokenizer.decode(ids).startswith("the sea 0")
    chat = opened(whole_run, tmp_path, "chat", [{"document": [words], "summary": ["sea"]}])
    assert not data.tokenizer.decode(chat.first[0].parts[0].tokens.tolist()).startswith("the sea 0")


def test_what_is_asked_begins_as_what_is_trained(whole_run, tmp_path):
    data = opened(
        whole_run, tmp_path, "answer", [{"context": "the sea", "question": "old?", "answers": ["wind", "sea"]}]
    )
    record = answer.dialogue(data.train[0])
    assert references(record) == ("wind", "sea")
    ids, _ = data.encoder.prompt(record.turns[:1])
    [part] = data.first[0].parts
    assert part.tokens[: len(ids)].tolist() == ids and not part.weights[: len(ids) - 1].any()
    assert part.weights[len(ids) - 1 :].all() and data.tokenizer.decode(ids) == "the sea\nold?\n"


def test_questions_without_an_answer_are_dropped_and_counted(whole_run, tmp_path):
    records = [{"context": "the sea", "question": f"old {i}?", "answers": ["wind"]} for i in range(30)]
    data = opened(whole_run, tmp_path, "answer", [*records, {"context": "c", "question": "q", "is_impossible": True}])
    assert len(data.first) == 30 and any("1 records dropped" in line for line in data.summary())


def test_a_label_ends_as_it_is_trained(whole_run, tmp_path):
    records = [{"text": "the sea", "label": label} for label in ("wind", "cold stone")]
    for template in ("auto", "chatml"):
        data = opened(whole_run, tmp_path, "choice", records, template=template)
        for item, record in zip(data.first, data.train):
            [part] = item.parts
            trained = part.targets[part.weights > 0].tolist()
            ids = choice.ending(data.renderer, record.labels[0])
            assert trained[: len(ids)] == ids and ids[-1] == data.renderer.end
    with pytest.raises(UserError, match="none of the training set's"):
        opened(whole_run, tmp_path, "choice", records, labels=("wind", "sea"))


def test_scores_take_the_best_reference():
    found = answer.score(["The cat!", "", "dog"], [["a", "cat"], ["x"], ["dog barks"]], "en")
    assert found["squad_em"] == pytest.approx(100 / 3) and found["squad_f1"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    found = answer.score(["北京大学", ""], [["北京"], ["上海"]], "zh")
    assert found["cmrc_em"] == 0 and found["cmrc_f1"] == pytest.approx(100 * (2 / 3) / 2)
    assert {"squad_em", "cmrc_f1", "rougeL", "rougeL_zh_char"} <= set(answer.FIGURES)
    assert {"rouge1", "rouge2_zh_char"} <= set(summary.FIGURES)


def test_columns_of_two_languages_either_way(tmp_path):
    (tmp_path / "pairs.tsv").write_text("Guten Tag\tgood day\tx\n")
    given = read([tmp_path / "pairs.tsv"], ("chat",), text="1", label="0").records
    assert [turn.content for turn in given[0].turns] == ["good day", "Guten Tag"]


def test_two_aligned_files(tmp_path):
    (tmp_path / "a.en.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.de.txt").write_text("eins\n\nzwei\n")
    found = read([f"{tmp_path}/a.en.txt+{tmp_path}/a.de.txt"], ("chat",)).records
    assert [[turn.content for turn in record.turns] for record in found] == [["one", "eins"], ["two", "zwei"]]
    (tmp_path / "a.de.txt").write_text("eins\n")
    with pytest.raises(UserError, match="3 lines and 1"):
        read([f"{tmp_path}/a.en.txt+{tmp_path}/a.de.txt"], ("chat",))


def test_a_library_that_is_missing_is_said_at_the_start(monkeypatch):
    monkeypatch.setattr(extras, "has", lambda name: False)
    with pytest.raises(UserError, match="pip install"):
        summary.similarity.rouge([""], [["x"]], "en")
