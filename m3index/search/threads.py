"""A thread for each leg, and a clock for their steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import TypeVar

T = TypeVar("T")


def start(job: Callable[[], T]) -> Future[T]:
    """Starts the job in a thread, which has the deadline of this one."""
    return _threads().submit(copy_context().run, job)


def run_together(jobs: Mapping[str, Callable[[], T]]) -> dict[str, Future[T]]:
    """Runs the jobs in parallel, the last one in this thread, and returns when all are done.

    The `result()` of a future raises what its job raised.
    """
    *others, (name, last) = jobs.items()
    futures = {other: start(job) for other, job in others}
    done: Future[T] = Future()
    try:
        done.set_result(last())
    except Exception as error:
        done.set_exception(error)
    wait(futures.values())
    return futures | {name: done}


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="leg")


class Clock:
    """Seconds by step, and in total since its creation. Several threads can time different steps."""

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
