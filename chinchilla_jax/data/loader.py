"""A host thread that makes batches ahead of the device."""

import collections
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class prefetch(Generic[T]):
    """Iterator over `produce(start) ... produce(stop - 1)`, made in order by one thread that is `depth` ahead.

    An exception of `produce` is raised by the `next` that would have given its value. `waited` counts the seconds
    that `next` had to wait. Use it as a context manager, or call `close`: the thread ends with it.
    """

    def __init__(self, produce: Callable[[int], T], start: int, stop: int, depth: int = 2):
        self.waited = 0.0
        self._produce, self._steps = produce, iter(range(start, stop))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._ahead: collections.deque[Future[T]] = collections.deque()
        for _ in range(max(1, depth)):
            self._submit()

    def _submit(self) -> None:
        for step in self._steps:
            self._ahead.append(self._thread.submit(self._produce, step))
            return

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._ahead:
            self.close()
            raise StopIteration
        self._submit()
        first = self._ahead.popleft()
        begun = time.perf_counter()
        try:
            return first.result()
        finally:
            self.waited += time.perf_counter() - begun
            if first.done() and first.exception() is not None:
                self.close()

    def close(self) -> None:
        """Drop what was made ahead and end the thread; further `next` calls stop."""
        self._steps = iter(())
        self._ahead.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "prefetch[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
