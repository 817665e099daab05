"""Host threads that make batches ahead of the device."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterator over `produce(start) ... produce(stop - 1)`, made in order by one thread that is `depth` ahead.

    An exception of `produce` is raised by the `next` that would have given its value. `waited` counts the seconds
    that `next` had to wait. Use it as a context manager, or call `close`: the thread ends with it.
    """

    def __init__(self, produce: Callable[[int], T], start: int, stop: int, depth: int = 2):
        self.waited = 0.0
        self._ready: queue.Queue = queue.Queue(maxsize=max(1, depth))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(produce, start, stop), name="prefetch", daemon=True)
        self._thread.start()

    def _work(self, produce: Callable[[int], T], start: int, stop: int) -> None:
        try:
            for step in range(start, stop):
                if not self._put((produce(step), None)):
                    return
            self._put((None, StopIteration()))
        except Exception as error:  # handed to the consumer, which raises it
            self._put((None, error))

    def _put(self, item: tuple) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._closed.is_set():
            raise StopIteration
        begun = time.perf_counter()
        value, error = self._ready.get()
        self.waited += time.perf_counter() - begun
        if error is not None:
            self.close()
            raise error
        return value

    def close(self) -> None:
        """End the thread; further `next` calls stop."""
        self._closed.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prefetch(produce: Callable[[int], T], start: int, stop: int, depth: int = 2) -> Prefetch[T]:
    """`produce(start) ... produce(stop - 1)` in order, made ahead by a thread; see `Prefetch`."""
    return Prefetch(produce, start, stop, depth)
