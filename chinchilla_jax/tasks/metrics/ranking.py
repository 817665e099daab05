"""Full ranking for one held-out item a user: hit rate, NDCG and reciprocal rank, with ties and seen items said.

The rank r of an item counts from 0: the items scored strictly higher, and those scored the same with a smaller number.
HR@k = [r < k], NDCG@k = [r < k] / log2(r + 2), MRR = 1 / (r + 1), each a mean over users. All items are ranked; sampled
negatives give other numbers, which cannot be compared with these (Krichene and Rendle 2020).
"""

from collections.abc import Sequence

import numpy as np

TOP = 10
NAMES = (f"hr{TOP}", f"ndcg{TOP}", "mrr")
UNKNOWN = -1  # the number of an item that the model does not have: it is never ranked, so never hit


def ranks(scores_UI: np.ndarray, target_U: np.ndarray, seen: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """The rank of each user's target (U,); items of `seen` are left out, the target itself never.

    What is not a number counts as scored higher. An unknown target, and one whose own score is no number, has an
    infinite rank, which no catalogue is small enough to make a hit.
    """
    numbers_I, target_U1 = np.arange(scores_UI.shape[1]), np.asarray(target_U)[:, None]
    own_U1 = np.take_along_axis(scores_UI, np.maximum(target_U1, 0), axis=1)
    above_UI = ~(scores_UI <= own_U1) | ((scores_UI == own_U1) & (numbers_I < target_U1))
    for row, items in enumerate(seen or ()):
        above_UI[row, list(items)] = False
    above_UI[np.arange(len(target_U)), np.maximum(target_U, 0)] = False
    never_U = (np.asarray(target_U) == UNKNOWN) | np.isnan(own_U1[:, 0])
    return np.where(never_U, np.inf, above_UI.sum(axis=1))


def figures(rank_U: np.ndarray, mark: str = "") -> dict[str, float]:
    """HR@10, NDCG@10 and MRR of some ranks; `mark` stands behind their names."""
    rank_U = np.asarray(rank_U, np.float64)
    hit_U = rank_U < TOP
    found = hit_U, np.where(hit_U, 1 / np.log2(rank_U + 2), 0.0), 1 / (rank_U + 1)
    return {f"{name}{mark}": float(value_U.mean()) for name, value_U in zip(NAMES, found)}


def popularity(histories: Sequence[Sequence[int]], items: int) -> np.ndarray:
    """How often each item occurs (I,), the scores that need no model."""
    return np.bincount([item for history in histories for item in history], minlength=items).astype(np.float32)
