"""Repeats a call that failed for a temporary reason, until its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

from m3index.store.milvus_errors import is_transient

T = TypeVar("T")

SHORTEST = 1.0
"""The minimum time for a repeated call, in seconds."""


def call(attempt: Callable[[float], T], timeout: float) -> T:
    """Calls `attempt(seconds)` with the time that is left, and again after 0.2, 0.4 ... 10 s with jitter.

    pymilvus itself repeats some failures until the seconds that it receives are over, so its time counts
    too. Every call of the store is idempotent, so a call whose answer was lost can be repeated. The last
    exception is raised unchanged.
    """
    end = time.monotonic() + timeout
    retrying = Retrying(
        stop=stop_after_delay(timeout),
        wait=wait_exponential(multiplier=0.2, max=10.0) + wait_random(0.0, 0.2),
        retry=retry_if_exception(is_transient),
        reraise=True,
    )
    return retrying(lambda: attempt(max(SHORTEST, end - time.monotonic())))
