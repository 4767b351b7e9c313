"""A thread for each leg, and a clock for what they do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

T = TypeVar("T")


def start(job: Callable[[], T]) -> Future[T]:
    """Begins the job in a thread."""
    return _threads().submit(job)


def at_once(jobs: Mapping[str, Callable[[], T]]) -> dict[str, Future[T]]:
    """Runs the jobs at the same time, the last of them in this thread, and returns when all are done.

    What a job raises, its future's `result()` raises.
    """
    *others, (name, mine) = jobs.items()
    futures = {other: start(job) for other, job in others}
    here: Future[T] = Future()
    try:
        here.set_result(mine())
    except Exception as error:
        here.set_exception(error)
    wait(futures.values())
    return futures | {name: here}


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="leg")


class Clock:
    """Seconds by step, and in all since it was made. Several threads may time steps of different names."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[step] = self._seconds.get(step, 0.0) + time.perf_counter() - start

    def read(self) -> dict[str, float]:
        return {**self._seconds, "total": time.perf_counter() - self._start}
