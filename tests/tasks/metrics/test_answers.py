"""Answers against the answers of SQuAD's script in ../shared, and against a plain copy of CMRC's definition."""

import gzip
import json
import random
import re
from pathlib import Path

import pytest

from chinchilla_jax.tasks.metrics import answers

GOLDENS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks" / "goldens" / "metrics.json.gz"
WORDS = [
    "北京", "大学", "\uff0c", "。", "the", "a", "Cat", "U.S.", "1,000", "don't", "3.5%", "é", "『", "-", "cannot", " ",
    "", "…", "A-b",
]  # fmt: skip


@pytest.mark.skipif(not GOLDENS.exists(), reason="no ../shared/data/tasks/goldens here")
def test_squad_goldens():
    for case in json.loads(gzip.decompress(GOLDENS.read_bytes()))["squad"]:
        texts = case["prediction"], case["gold"]
        assert [answers.normalised(text) for text in texts] == case["normalised"]
        assert answers.squad_exact(*texts) == case["em"]
        assert answers.squad_f1(*texts) == pytest.approx(case["f1"], abs=1e-12)


def cmrc_twin(output: str, reference: str) -> tuple[float, float]:
    """The definition in finetuning.md 2.2 (the script of the set), by quadratic tables over all starts."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    listed = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"  # noqa: RUF001

    def cut(text: str) -> list[str]:
        kept = "".join(c for c in text.lower().strip() if c not in listed)
        parts = re.split("([\u4e00-\u9fa5])", kept)
        return [w for part in parts for w in ([part] if re.fullmatch("[\u4e00-\u9fa5]", part)
                                              else NLTKWordTokenizer().tokenize(part))]  # fmt: skip

    a, b = cut(output), cut(reference)
    same = max((n for n in range(1, len(a) + 1) for i in range(len(a) - n + 1) for j in range(len(b) - n + 1)
                if a[i : i + n] == b[j : j + n]), default=0)  # fmt: skip
    p, r = same / max(len(a), 1), same / max(len(b), 1)
    bare = ["".join(c for c in text.lower().strip() if c not in listed) for text in (output, reference)]
    return float(bare[0] == bare[1]), 2 * p * r / (p + r) if same else 0.0


def test_a_thousand_random_answers_equal_cmrcs_definition():
    pytest.importorskip("nltk", reason="nltk is not installed: pip install '.[tasks]'")
    for seed in range(1000):
        draw = random.Random(seed)
        reference = draw.choices(WORDS, k=draw.randint(0, 5))
        output = [word if draw.random() < 0.7 else draw.choice(WORDS) for word in reference] + draw.choices(WORDS, k=1)
        texts = draw.choice(["", " "]).join(output), draw.choice(["", " "]).join(reference)
        found = answers.cmrc_exact(*texts), answers.cmrc_f1(*texts)
        assert found == pytest.approx(cmrc_twin(*texts), abs=1e-12), texts


def test_words_that_nltk_divides_are_left_to_it():
    nltk = pytest.importorskip("nltk.tokenize.destructive", reason="nltk is not installed: pip install '.[tasks]'")
    for text in ("cannot gimme gonna gotta lemme more'n wanna d'ye whaddya whatcha", "plain words 12 é", "tis twas"):
        for run in (text, *text.split()):
            assert answers.latin(run) == nltk.NLTKWordTokenizer().tokenize(run), run


def test_the_best_reference_counts_and_none_means_no_answer():
    assert answers.best("squad", "cat", ["dog", "the cat sat", "Cat."]) == (1.0, 1.0)
    assert answers.best("squad", "", []) == (1.0, 1.0) and answers.best("squad", "cat", []) == (0.0, 0.0)
    assert answers.best("squad", "cat", ["the", "dog"]) == (0.0, 0.0)
    assert answers.best("cmrc", "", []) == (1.0, 1.0) and answers.best("cmrc", "北京", []) == (0.0, 0.0)
    assert answers.best("cmrc", "北京大学", ["北京", "清华"]) == (0.0, pytest.approx(2 / 3))
