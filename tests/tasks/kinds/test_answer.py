"""Questions answered in words: prompts, references, scores."""

import pytest

from chinchilla_jax.tasks.kinds import answer, summary
from chinchilla_jax.tasks.kinds.chat import references
from tests.tasks.made import of_kind

pytest.importorskip("rouge_score")


def test_what_is_asked_begins_as_what_is_trained(whole_run, tmp_path):
    data = of_kind(
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
    data = of_kind(whole_run, tmp_path, "answer", [*records, {"context": "c", "question": "q", "is_impossible": True}])
    assert len(data.first) == 30 and any("1 records dropped" in line for line in data.summary())


def test_scores_take_the_best_reference():
    found = answer.score(["The cat!", "", "dog"], [["a", "cat"], ["x"], ["dog barks"]], "en")
    assert found["squad_em"] == pytest.approx(100 / 3) and found["squad_f1"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    found = answer.score(["北京大学", ""], [["北京"], ["上海"]], "zh")
    assert found["cmrc_em"] == 0 and found["cmrc_f1"] == pytest.approx(100 * (2 / 3) / 2)
    assert {"squad_em", "cmrc_f1", "rougeL", "rougeL_zh_char"} <= set(answer.FIGURES)
    assert {"rouge1", "rouge2_zh_char"} <= set(summary.FIGURES)
