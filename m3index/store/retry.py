"""Repeats a call that failed for a passing reason, until its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

from m3index.store.faults import is_transient

T = TypeVar("T")

SHORTEST = 1.0
"""The least time that a repeated call is given, in seconds."""


def call(attempt: Callable[[float], T], timeout: float) -> T:
    """`attempt(seconds)` with the time that is left, repeated after 0.2, 0.4 ... 10 s with jitter.

    pymilvus repeats some failures by itself for as long as the seconds that it is given, so its
    time is counted in. Every call of the store is idempotent, so one whose answer was lost may be
    repeated. The last exception is raised as it is.
    """
    end = time.monotonic() + timeout
    retrying = Retrying(
        stop=stop_after_delay(timeout),
        wait=wait_exponential(multiplier=0.2, max=10.0) + wait_random(0.0, 0.2),
        retry=retry_if_exception(is_transient),
        reraise=True,
    )
    return retrying(lambda: attempt(max(SHORTEST, end - time.monotonic())))
