"""Classification: accuracy, F1 by label, Matthews' correlation, calibration; one label a record or several."""

import numpy as np


def f1(right, said, there) -> np.ndarray:
    """2 right / (said + there), element by element; 0 where both are 0."""
    return 2 * np.asarray(right) / np.maximum(np.asarray(said) + np.asarray(there), 1)


def confusion(reference_N: np.ndarray, output_N: np.ndarray, labels: int) -> np.ndarray:
    """Counts by (reference, output): (labels, labels)."""
    counts = np.zeros((labels, labels), np.int64)
    np.add.at(counts, (reference_N, output_N), 1)
    return counts


def single(reference_N: np.ndarray, output_N: np.ndarray, labels: int) -> dict[str, float]:
    """Figures of one label a record.

    `macro_f1` is the mean over the labels of training that a reference or an output has; `weighted_f1` weighs them by
    their references; `mcc` is Gorodkin's R_K, 0 where references or outputs are all the same.
    """
    if not len(reference_N):
        return dict.fromkeys(("accuracy", "macro_f1", "weighted_f1", "mcc"), 0.0)
    counts = confusion(reference_N, output_N, labels)
    right, said, there = counts.diagonal(), counts.sum(0), counts.sum(1)
    each, seen = f1(right, said, there), (said + there) > 0
    return {
        "accuracy": right.sum() / len(reference_N),
        "macro_f1": each[seen].mean(),
        "weighted_f1": (each * there).sum() / max(there.sum(), 1),
        "mcc": matthews(reference_N, output_N, labels),
    }


def matthews(reference_N: np.ndarray, output_N: np.ndarray, labels: int) -> float:
    """(c s - sum t_k p_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2)), c right of s records (Gorodkin 2004)."""
    counts = confusion(reference_N, output_N, labels).astype(np.float64)
    said, there, total = counts.sum(0), counts.sum(1), counts.sum()
    spread = (total**2 - (said**2).sum()) * (total**2 - (there**2).sum())
    same = counts.trace() * total - (said * there).sum()
    return same / np.sqrt(spread) if spread > 0 else 0.0


def several(reference_NC: np.ndarray, output_NC: np.ndarray) -> dict[str, float]:
    """Figures of sets of labels, as booleans: F1 over all decisions, the mean over labels, the share of equal sets."""
    right, said, there = (reference_NC & output_NC).sum(0), output_NC.sum(0), reference_NC.sum(0)
    return {
        "micro_f1": float(f1(right.sum(), said.sum(), there.sum())),
        "macro_f1": float(f1(right, said, there).mean()) if len(right) else 0.0,
        "equal": float((reference_NC == output_NC).all(1).mean()) if len(reference_NC) else 0.0,
    }


def threshold(reference_NC: np.ndarray, p_NC: np.ndarray) -> float:
    """The probability from which a label counts, in hundredths, that gives the best micro-F1; of equals the middle."""
    tried = np.arange(1, 100) / 100
    found = np.array([several(reference_NC, p_NC >= t)["micro_f1"] for t in tried])
    best = np.flatnonzero(found >= found.max() - 1e-12)
    return float(tried[best[len(best) // 2]])


def calibration(right_N: np.ndarray, p_N: np.ndarray, bins: int = 15) -> list[tuple[float, float, int]]:
    """(mean probability, share right, how many) of every bin of equal width that holds something."""
    place = np.minimum((np.asarray(p_N) * bins).astype(int), bins - 1)
    held = [(place == b) for b in range(bins) if (place == b).any()]
    return [(float(p_N[b].mean()), float(right_N[b].mean()), int(b.sum())) for b in held]


def ece(right_N: np.ndarray, p_N: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: the mean over records of |p - share right| of their bin (Guo et al. 2017)."""
    if not len(p_N):
        return 0.0
    return sum(n * abs(p - share) for p, share, n in calibration(right_N, p_N, bins)) / len(p_N)
