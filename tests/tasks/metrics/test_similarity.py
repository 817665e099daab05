"""BLEU, chrF and ROUGE against the goldens and by hand; characters of Chinese; variety of outputs."""

import gzip
import json
import random
from pathlib import Path

import pytest

from chinchilla_jax.errors import UserError
from chinchilla_jax.tasks.kinds.chat import references
from chinchilla_jax.tasks.metrics import similarity
from chinchilla_jax.tasks.read import read

pytest.importorskip("sacrebleu")
pytest.importorskip("rouge_score")
GOLDENS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks" / "goldens" / "metrics.json.gz"
WORDS = ["the", "cats", "sat", "running", "Bühne", "naïve", "海", "风吹", "3.5", "e-mail", "", " ", "。", "OK", "ok"]


@pytest.fixture(scope="module")
def goldens():
    if not GOLDENS.exists():
        pytest.skip("no goldens")
    return json.loads(gzip.decompress(GOLDENS.read_bytes()))


def test_goldens_of_translation(goldens):
    for case in goldens["translation"]:
        given = [list(texts) for texts in zip(*case["refs"])]
        found, signature = similarity.translation(case["hyp"], given, case["lang"])
        wanted = case["bleu_zh" if case["lang"] == "zh" else "bleu_13a"], case["chrf2"]
        assert (found["bleu"], found["chrf2"]) == pytest.approx(wanted, abs=1e-9)
        assert f"tok:{'zh' if case['lang'] == 'zh' else '13a'}" in signature


def test_goldens_of_summaries(goldens):
    for case in goldens["summarisation"]:
        found = similarity.rouge([case["hyp"]], [[case["ref"]]], "en")
        for name, value in found.items():
            assert value == pytest.approx(100 * case["stem"][name][2], abs=1e-9)


def draws(count: int):
    """Outputs with one to three references, of words that are empty, repeated and not ASCII."""
    draw = random.Random(0)
    for _ in range(count):
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(0, 9))) for _ in range(draw.randint(2, 4))]
        yield texts[0], texts[1:]


def lcs(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        fresh = [0]
        for j, y in enumerate(b, 1):
            fresh.append(row[j - 1] + 1 if x == y else max(row[j], fresh[-1]))
        row = fresh
    return row[-1]


def f1(hits: int, predicted: int, wanted: int) -> float:
    """Of counts."""
    return 2 * hits / (predicted + wanted) if hits else 0.0


def naive_rouge(output: list[str], reference: list[str]) -> tuple[float, ...]:
    """ROUGE-1, 2 and L of units, from their definition."""
    found = []
    for n in (1, 2):
        left = [tuple(reference[i : i + n]) for i in range(len(reference) - n + 1)]
        total, wanted, hits = max(0, len(output) - n + 1), len(left), 0
        for i in range(total):
            gram = tuple(output[i : i + n])
            if gram in left:
                left.remove(gram)
                hits += 1
        found.append(f1(hits, total, wanted))
    return *found, f1(lcs(output, reference), len(output), len(reference))


def test_characters_agree_with_the_definition():
    """And of several references each figure takes its best, which need not be the same one."""
    cases = list(draws(1000))
    for output, given in cases:
        found = similarity.rouge([output], [given], "zh")
        cut = similarity.Characters().tokenize
        each = [naive_rouge(cut(output), cut(reference)) for reference in given]
        wanted = [100 * max(column) for column in zip(*each)]
        assert [*found.values()] == pytest.approx(wanted, abs=1e-9)
    assert [*found] == ["rouge1_zh_char", "rouge2_zh_char", "rougeL_zh_char"]
    assert similarity.Characters().tokenize("A 4在\n年。") == ["A", "4", "在", "年", "。"]


def test_the_first_characters_of_abstracts_are_as_good_titles_as_published():
    """35.68 / 25.10 / 31.70 for the first 20 characters, counted by others."""
    if not (CSL := GOLDENS.parents[1] / "summarisation/csl_title/test.tsv.gz").exists():
        pytest.skip("no CSL")
    records = read([CSL], ("chat",), text="1", label="2").records
    outputs = [record.turns[0].content[:20] for record in records]
    found = similarity.rouge(outputs, [references(record) for record in records], "zh")
    assert [round(value, 2) for value in found.values()] == [35.68, 25.10, 31.70]


def test_libraries_are_asked_with_their_own_settings():
    """Whole corpora and single texts equal direct calls, with as many references as there are."""
    import sacrebleu
    from rouge_score import rouge_scorer

    outputs, several = map(list, zip(*draws(1000)))
    found, signature = similarity.translation(outputs, several, "en")
    bleu = sacrebleu.corpus_bleu(outputs, similarity.streams(several))
    chrf = sacrebleu.corpus_chrf(outputs, similarity.streams(several))
    assert (found["bleu"], found["chrf2"]) == pytest.approx((bleu.score, chrf.score), abs=1e-9)
    assert "case:mixed" in signature and "smooth:exp" in signature and "nrefs:var" in signature
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    best = [max(scorer.score(r, o)["rougeL"].fmeasure for r in given) for o, given in zip(outputs, several)]
    assert similarity.rouge(outputs, several, "en")["rougeL"] == pytest.approx(sum(best) / 10, abs=1e-9)
    assert similarity.rouge(["running"], [["runs"]], "en")["rouge1"] == 100.0
    assert similarity.rouge(["running"], [["runs"]], "de")["rouge1"] == 0.0, "the stemmer is one of English"


def test_variety_and_languages():
    found = similarity.variety(["a b a b", "a", ""], "en")
    assert found == {"distinct1": 40.0, "distinct2": pytest.approx(200 / 3), "length": pytest.approx(5 / 3)}
    assert similarity.variety([], "en") == {"distinct1": 0.0, "distinct2": 0.0, "length": 0.0}
    assert similarity.variety(["好好 k"], "zh")["distinct1"] == pytest.approx(200 / 3)
    for text, language in (
        ("Guten Tag", "en"),
        ("你好世界 ok", "zh"),
        ("\U00020bb7\U0002000b", "zh"),  # characters beyond the first 65,536
        ("こんにちは世界", "ja"),
        ("안녕", "ko"),
        ("", "en"),
    ):
        assert similarity.language_of([text]) == language


@pytest.mark.parametrize("asked, code", [
    ("auto", "auto"), ("zh", "zh"), ("ZH", "zh"), ("zh-CN", "zh"), ("ja_JP", "ja"), ("kor", "ko"), ("de", "de"),
])  # fmt: skip
def test_a_language_is_a_code(asked, code):
    assert similarity.code_of(asked) == code


@pytest.mark.parametrize("asked", ["Chinese", "", "z", "z1"])
def test_another_name_of_a_language_is_refused(asked):
    with pytest.raises(UserError, match=rf"--task\.language {asked} is no code of two or three letters"):
        similarity.code_of(asked)
