from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from m3index.index.prefetch import prefetch


def threads() -> int:
    return sum(t.name == "m3index-prefetch" for t in threading.enumerate())


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_gives_the_same_items_in_order(depth: int) -> None:
    assert list(prefetch(range(50), depth)) == list(range(50))
    assert threads() == 0


def test_none_is_an_item() -> None:
    assert list(prefetch([None, 1, None], 2)) == [None, 1, None]


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    ahead = prefetch(broken(), 1)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(ahead)
    assert threads() == 0


def test_runs_at_most_depth_ahead() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    ahead = prefetch(items(), 2)
    next(ahead)
    time.sleep(0.2)
    assert len(made) == 4  # one consumed, two queued, one waiting for the queue
    ahead.close()


def test_closing_stops_the_producer_and_closes_the_source() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            i = 0
            while True:
                yield (i := i + 1)
        finally:
            closed.set()

    ahead = prefetch(endless(), 2)
    assert next(ahead) == 1
    started = time.monotonic()
    ahead.close()
    assert time.monotonic() - started < 1
    assert closed.is_set()
    assert threads() == 0


def test_chained_stages_end_together() -> None:
    first = prefetch(iter(range(10**9)), 2)
    second = prefetch((i * 2 for i in first), 1)
    assert next(second) == 0
    second.close()
    first.close()
    assert threads() == 0


def test_overlaps_the_work_of_producer_and_consumer() -> None:
    def slow() -> Iterator[int]:
        for i in range(5):
            time.sleep(0.05)
            yield i

    started = time.monotonic()
    for _ in prefetch(slow(), 2):
        time.sleep(0.05)
    assert time.monotonic() - started < 0.45
