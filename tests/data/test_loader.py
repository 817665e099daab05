"""Prefetching keeps the order, hands on errors, and ends."""

import threading
import time

import pytest

from chinchilla_jax.data.loader import prefetch


def test_in_order_and_no_more_than_depth_ahead():
    made = []
    with prefetch(lambda step: made.append(step) or step, 3, 20, depth=2) as ahead:
        for expected, got in zip(range(3, 20), ahead, strict=True):
            assert got == expected
            assert len(made) <= got - 3 + 4
    assert made == list(range(3, 20))


def test_nothing_to_do():
    assert list(prefetch(str, 5, 5)) == []


def test_an_error_comes_at_its_own_step():
    def produce(step: int) -> int:
        if step == 2:
            raise ValueError("bad batch 2")
        return step

    ahead = prefetch(produce, 0, 10)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="bad batch 2"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)


def prefetching() -> bool:
    """Whether a thread of the loader runs."""
    return any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_closing_ends_the_thread():
    with prefetch(lambda step: step, 0, 10**9) as ahead:
        next(ahead)
        assert prefetching()
    assert not prefetching()
    assert list(ahead) == []


def test_waiting_is_counted():
    with prefetch(lambda step: time.sleep(0.05), 0, 3) as ahead:
        list(ahead)
    assert ahead.waited > 0
