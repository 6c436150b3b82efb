"""Stages side by side: order, errors, shutting down."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest
from tests_support import interruptible

from asd_explain.stages import Ahead, Behind, Timings


def test_ahead_keeps_order_and_is_bounded() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    with Ahead(make(), depth=3) as items:
        for i, item in enumerate(items):
            assert item == i
            assert len(made) <= i + 1 + 3 + 2
    assert made == list(range(50))


def test_ahead_hands_over_the_threads_exception() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise RuntimeError("broken clip")

    with Ahead(make()) as items, pytest.raises(RuntimeError, match="broken clip"):
        list(items)


def test_leaving_ahead_early_stops_its_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def make() -> Iterator[int]:
        try:
            i = 0
            while True:
                yield i
                i += 1
        finally:
            closed.set()

    with pytest.raises(KeyboardInterrupt), Ahead(make(), depth=2) as items:
        for item in items:
            if item == 5:
                raise KeyboardInterrupt
    assert closed.wait(5)


def test_behind_does_everything_in_order_before_it_is_left() -> None:
    done: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.001)
        done.append(item)

    with Behind(slow, depth=2) as send:
        for i in range(30):
            send(i)
    assert done == list(range(30))


def test_behind_raises_what_its_function_raised() -> None:
    def fail(_: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Behind(fail) as send:
        for i in range(100):
            send(i)


def test_behind_drops_what_waits_when_left_by_an_exception() -> None:
    done: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.02)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), Behind(slow, depth=20) as send:
        for i in range(15):
            send(i)
        raise KeyboardInterrupt
    assert len(done) < 15


@interruptible
def test_an_interruption_while_waiting_ends_the_thread_before_anything_else() -> None:
    done: list[int] = []
    running = threading.Event()

    def slow(item: int) -> None:
        running.set()
        time.sleep(0.05)
        done.append(item)

    def interrupt() -> None:
        running.wait()
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    behind = Behind(slow, depth=100)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), behind as send:
        for i in range(60):
            send(i)
    assert not behind._thread.is_alive()
    assert len(done) < 60


def test_timings_add_up() -> None:
    timings = Timings()
    for _ in timings.over(range(3), "loop"):
        with timings("work"):
            pass
    assert timings.calls == {"loop": 3, "work": 3}
    assert all(seconds >= 0 for seconds in timings.seconds.values())
