"""Ranking against the goldens, against brute force, and the counts of MovieTweetings."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.tasks import splits
from chinchilla_jax.tasks.metrics import ranking
from chinchilla_jax.tasks.read import read
from chinchilla_jax.tasks.records import Tally

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "tasks"
GOLDENS = SHARED / "goldens" / "metrics.json.gz"
MOVIES = SHARED / "recommendation" / "movietweetings" / "ratings.inter.gz"


@pytest.mark.skipif(not GOLDENS.exists(), reason="no goldens")
def test_goldens_of_ranking():
    for case in json.loads(gzip.decompress(GOLDENS.read_bytes()))["ranking"]:
        scores, target = np.array([case["scores"]]), np.array([case["target"]])
        [rank] = ranking.ranks(scores, target, [case["seen"]])
        found = ranking.figures(np.array([rank]))
        assert rank == case["rank_ties_by_index"]
        for name in ("hr10", "ndcg10", "mrr"):
            assert found[name] == pytest.approx(case[name], abs=1e-12)


def test_ranks_agree_with_sorting():
    """1,000 users with many ties, seen items, seen targets and targets that the model does not have."""
    draw = np.random.default_rng(0)
    scores_UI = draw.integers(0, 6, (1000, 23)).astype(np.float32)
    target_U = draw.integers(-1, 23, 1000)
    seen = [draw.choice(23, draw.integers(0, 9), replace=False).tolist() for _ in range(1000)]
    found_U = ranking.ranks(scores_UI, target_U, seen)
    for scores_I, target, gone, found in zip(scores_UI, target_U, seen, found_U):
        order = sorted(range(23), key=lambda i: (-scores_I[i], i))
        left = [i for i in order if i == target or i not in gone]
        assert found == (left.index(target) if target >= 0 else np.inf)


@pytest.mark.parametrize("items", [3, 30])
def test_a_diverged_model_hits_nothing_and_an_unknown_item_is_never_hit(items):
    """In a catalogue of fewer than ten items neither."""
    none = {"hr10": 0.0, "ndcg10": 0.0, "mrr": 0.0}
    scores_UI = np.full((2, items), np.nan, np.float32)
    assert ranking.figures(ranking.ranks(scores_UI, np.array([0, items - 1]))) == none
    assert ranking.figures(ranking.ranks(np.zeros((1, items)), np.array([ranking.UNKNOWN]))) == none


@pytest.mark.skipif(not MOVIES.exists(), reason="no MovieTweetings")
def test_movietweetings_counts_and_the_popular_baseline():
    found = splits.core(read([MOVIES], "items").records, 5)
    names = {item: i for i, item in enumerate(sorted({item for h in found for item in h.items}))}
    assert (len(found), len(names), sum(len(h.items) for h in found)) == (2958, 1883, 45543)
    _, _, test = splits.leave_one_out(found, Tally())
    known = [[names[item] for item in h.items] for h in test]
    scores_UI = np.tile(ranking.popularity([h[:-1] for h in known], len(names)), (len(known), 1))
    rank_U = ranking.ranks(scores_UI, np.array([h[-1] for h in known]), [h[:-1] for h in known])
    popular = ranking.figures(rank_U)
    assert (round(popular["hr10"], 4), round(popular["ndcg10"], 4)) == (0.1521, 0.0756)
