"""Running stages side by side with bounded queues, and knowing where the time went."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class Timings:
    """Seconds spent in each stage, added up over threads.

    Attributes:
        seconds: {stage: wall-clock seconds}; stages that run side by side add up to more than the whole.
        calls: {stage: number of measured calls}.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure the body of a ``with`` statement."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begun)

    def add(self, stage: str, seconds: float) -> None:
        """Count one call of a stage."""
        with self._lock:
            self.seconds[stage] += seconds
            self.calls[stage] += 1

    def over(self, items: Iterable[T], stage: str) -> Iterator[T]:
        """Pass items on, counting the time that it takes to get each."""
        iterator = iter(items)
        while True:
            begun = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.add(stage, time.perf_counter() - begun)
            yield item


def join_for_certain(thread: threading.Thread) -> None:
    """Wait for a thread that is about to end, whatever interrupts the wait; an interruption is raised afterwards."""
    interrupted: BaseException | None = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


class Ahead(Generic[T]):
    """Runs an iterable in a thread of its own, a bounded number of items ahead of its consumer.

    Use it as a context manager; leaving it stops the thread, whatever happened. An exception in the thread is raised in
    the consumer.

    Args:
        items: what to run.
        depth: items that may wait.
    """

    def __init__(self, items: Iterable[T], depth: int = 8) -> None:
        self._items = items
        self._queue: queue.Queue = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Ahead[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        join_for_certain(self._thread)

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
            self._put(_END)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if item is _END:
                if self._error is not None:
                    raise self._error
                return
            yield item


class Behind(Generic[T]):
    """Feeds a function in a thread of its own; the mirror image of :class:`Ahead`.

    Leaving the ``with`` block normally waits for everything to be done; leaving it by an exception drops what waits. An
    exception of the function is raised at the next call or at the end.

    Args:
        function: called with each item, in order.
        depth: items that may wait.
    """

    def __init__(self, function: Callable[[T], None], depth: int = 4) -> None:
        self._function = function
        self._queue: queue.Queue = queue.Queue(depth)
        self._drop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Behind[T]:
        self._thread.start()
        return self

    def __call__(self, item: T) -> None:
        """Hand over one item; blocks while the queue is full."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            self._drop.set()
        try:
            self._queue.put(_END)
            self._thread.join()
        except BaseException:
            # Interrupted while waiting for the rest: drop it, and let the function at work end before anything it uses.
            self._drop.set()
            self._queue.put(_END)
            join_for_certain(self._thread)
            raise
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._drop.is_set() or self._error is not None:
                continue
            try:
                self._function(item)
            except BaseException as error:
                self._error = error
