"""Who is trained on and who is held out."""

import numpy as np
import pytest

from chinchilla_jax.config import DataConfig
from chinchilla_jax.data import fs
from chinchilla_jax.data.stages import splitting
from chinchilla_jax.data.stages.job import Job
from chinchilla_jax.data.stages.rows import ROW, boundaries
from chinchilla_jax.data.stages.splitting import Totals, plan

BITS = 3


@pytest.fixture
def job(tmp_path):
    return lambda fraction: Job(str(tmp_path), "", DataConfig(valid_fraction=fraction), BITS, 1 << 20)


def documents(sizes, own=None, sources=None, seed=0) -> np.ndarray:
    """Rows with distinct keys for documents of these sizes, in their order."""
    rows = np.zeros(len(sizes), ROW)
    rows["key"] = np.random.default_rng(seed).integers(0, 2**64, len(sizes), dtype=np.uint64)
    rows["size"], rows["own"], rows["source"] = sizes, own if own is not None else 0, sources if sources else 0
    return rows


def split(job, rows, sources=1) -> np.ndarray:
    """Which rows are held out, by the plan over all partitions."""
    ordered = rows[np.argsort(rows["key"])]
    edges = np.append(np.searchsorted(ordered["key"], boundaries(BITS)), len(rows))
    for number, (first, last) in enumerate(zip(edges, edges[1:])):  # noqa: RUF007
        fs.write(job.path("merge", f"{number:04}.rows"), ordered[first:last].tobytes())
    return plan(job, Totals.of(job, sources)).held_out(rows)


def test_the_share_is_met(job):
    rows = documents(np.random.default_rng(1).integers(10, 1000, 5000))
    held = split(job(0.05), rows)
    assert rows["size"][held].sum() / rows["size"].sum() == pytest.approx(0.05, rel=0.02)


def test_every_source_has_its_share(job):
    rows = documents(np.random.default_rng(1).integers(10, 1000, 4000), sources=[0] * 3000 + [1] * 1000)
    held = split(job(0.1), rows, 2)
    for source in (0, 1):
        mine = rows["source"] == source
        assert rows["size"][held & mine].sum() / rows["size"][mine].sum() == pytest.approx(0.1, rel=0.04)


def test_more_documents_move_few_others(job):
    rows = documents([100] * 2000)
    assert (split(job(0.1), rows[:1900]) != split(job(0.1), rows)[:1900]).sum() < 20


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_both_splits_get_text(job, count, fraction):
    held = split(job(fraction), documents([50 + 10 * n for n in range(count)]))
    assert not held.all()
    assert held.any() or fraction == 0.01  # where all exceed twice the share, one is to be cut


def test_documents_too_large_to_hold_out_stay(job):
    assert not split(job(0.01), documents([1000, 1200, 1100])).any()
    assert not split(job(0.01), documents([1000])).any()


def test_a_split_of_its_own_is_kept(job):
    own = [splitting.FREE + 1] * 90 + [splitting.VALID] * 10
    assert split(job(0.5), documents([10] * 100, own)).tolist() == [False] * 90 + [True] * 10
    held = split(job(0.1), documents([10] * 300, own + [splitting.FREE] * 200))
    assert held[:100].tolist() == [False] * 90 + [True] * 10 and held[100:].sum() == 20
