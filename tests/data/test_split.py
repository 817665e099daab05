"""Who is dropped, trained on and held out."""

import numpy as np
import pytest

from chinchilla_jax.data.split import DROPPED, TRAIN, VALID, duplicates, plan


def corpus(sizes, own=None, seed=0):
    """Distinct hashes for documents of these sizes."""
    digests = np.random.default_rng(seed).integers(0, 2**63, (len(sizes), 2)).astype(np.uint64)
    return digests, np.array(sizes, np.uint64), np.array(own if own else [0] * len(sizes), np.uint8)


def test_the_share_is_met_and_the_seed_matters():
    digests, sizes, own = corpus(np.random.default_rng(1).integers(10, 1000, 5000).tolist())
    fates = [plan(digests, sizes, own, 0.05, seed, True).fate for seed in (0, 0, 1)]
    assert sizes[fates[0] == VALID].sum() / sizes.sum() == pytest.approx(0.05, rel=0.02)
    assert np.array_equal(fates[0], fates[1]) and not np.array_equal(fates[0], fates[2])


def test_more_documents_move_few_others():
    digests, sizes, own = corpus([100] * 2000)
    some = plan(digests[:1900], sizes[:1900], own[:1900], 0.1, 0, True).fate
    more = plan(digests, sizes, own, 0.1, 0, True).fate[:1900]
    assert (some != more).sum() < 20


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_both_splits_get_text(count, fraction):
    digests, sizes, own = corpus([50 + 10 * n for n in range(count)])
    found = plan(digests, sizes, own, fraction, 0, True)
    assert (found.fate == TRAIN).any()
    assert (found.fate == VALID).any() or found.cut is not None


def test_one_document_is_cut():
    digests, sizes, own = corpus([1000])
    assert plan(digests, sizes, own, 0.01, 0, True).cut == 0


def test_documents_too_large_to_hold_out_are_cut():
    digests, sizes, own = corpus([1000, 1200, 1100])
    found = plan(digests, sizes, own, 0.01, 0, True)
    assert found.cut in (0, 1, 2) and found.tail == 33 and (found.fate == TRAIN).all()


def test_a_split_of_its_own_is_kept():
    digests, sizes, own = corpus([10] * 100, [1] * 90 + [2] * 10)
    found = plan(digests, sizes, own, 0.5, 0, True)
    assert found.fate.tolist() == [TRAIN] * 90 + [VALID] * 10 and found.cut is None


def test_a_mixture_splits_only_what_has_no_split():
    digests, sizes, own = corpus([10] * 300, [1] * 90 + [2] * 10 + [0] * 200)
    fate = plan(digests, sizes, own, 0.1, 0, True).fate
    assert fate[:100].tolist() == [TRAIN] * 90 + [VALID] * 10
    assert (fate[100:] == VALID).sum() == 20


def test_duplicates_are_those_of_a_python_set():
    draw = np.random.default_rng(3)
    digests = draw.integers(0, 2, (400, 2)).astype(np.uint64) * np.uint64(2**40) + draw.integers(0, 9, (400, 2)).astype(
        np.uint64
    )
    seen, expected = set(), []
    for number, digest in enumerate(map(tuple, digests.tolist())):
        expected += [number] if digest in seen else []
        seen.add(digest)
    assert sorted(duplicates(digests, np.zeros(400, np.uint8)).tolist()) == expected


def test_of_equal_documents_the_held_out_one_stays():
    digests, sizes, _ = corpus([10, 10, 10])
    digests[2] = digests[0]
    assert plan(digests, sizes, np.array([1, 1, 2], np.uint8), 0.1, 0, True).fate.tolist() == [DROPPED, TRAIN, VALID]
    assert plan(digests, sizes, np.array([1, 1, 2], np.uint8), 0.1, 0, False).fate.tolist() == [TRAIN, TRAIN, VALID]
