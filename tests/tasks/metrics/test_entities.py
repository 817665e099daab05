"""F1 of entities against seqeval: its own answers in ../shared, and 1,000 random taggings where it is installed."""

import gzip
import json
import random
import warnings
from pathlib import Path

import pytest

from chinchilla_jax.tasks.metrics import entities

GOLDENS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks" / "goldens" / "metrics.json.gz"
FIND = {"strict": entities.strict, "lenient": entities.lenient}


@pytest.mark.skipif(not GOLDENS.exists(), reason="no ../shared/data/tasks/goldens here")
@pytest.mark.parametrize("mode", FIND)
def test_goldens(mode):
    for case in json.loads(gzip.decompress(GOLDENS.read_bytes()))["spans"]:
        counts = entities.counted(case["y"], case["p"], FIND[mode])
        assert entities.micro(counts) == pytest.approx(case[mode]["micro"], abs=1e-12)
        assert entities.macro(counts) == pytest.approx(case[mode]["macro"], abs=1e-12)


def taggings(seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """References and outputs with broken tags, types with hyphens and of other scripts, equal ones, empty ones."""
    draw = random.Random(seed)
    types = draw.sample(["PER", "LOC", "creative-work", "地名", "é"], draw.randint(1, 5))
    names = ["O", *(f"{prefix}-{name}" for name in types for prefix in "BI")]
    shape = [draw.randint(1, 12) for _ in range(draw.randint(1, 6))]
    references = [[draw.choice(names) for _ in range(n)] for n in shape]
    outputs = [[tag if draw.random() < 0.6 else draw.choice(names) for tag in one] for one in references]
    if seed % 10 == 0:
        references = [["O"] * n for n in shape]
    return references, outputs


def test_a_thousand_taggings_equal_seqeval():
    metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed: pip install '.[tasks]'")
    scheme = pytest.importorskip("seqeval.scheme")
    each = metrics.precision_score, metrics.recall_score, metrics.f1_score
    how = {"strict": {"mode": "strict", "scheme": scheme.IOB2}, "lenient": {}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(1000):
            references, outputs = taggings(seed)
            for mode, find in FIND.items():
                counts = entities.counted(references, outputs, find)
                found = [score(references, outputs, average="micro", zero_division=0, **how[mode]) for score in each]
                assert entities.micro(counts) == pytest.approx(found, abs=1e-9), (seed, mode)
                if counts:
                    found = metrics.f1_score(references, outputs, average="macro", zero_division=0, **how[mode])
                    assert entities.macro(counts)[2] == pytest.approx(found, abs=1e-9), (seed, mode)
