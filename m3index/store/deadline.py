"""The time that a call of the store may take, over all its repetitions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc

from m3index.store.retry import SHORTEST

_end: ContextVar[float] = ContextVar("end of the time for calls of the store", default=math.inf)
"""Of a context, not of a thread, so that a search hands it on to the threads of its legs."""


class Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
    """Ends each gRPC call when the time of its context is over.

    pymilvus repeats a failed call with its whole timeout again, so that a call whose server answers just at
    the end of the timeout would take twice as long. A call that is sent at the very end still has `SHORTEST`.
    """

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Within it, all calls of this context take at most `seconds` together, or what is left outside."""
        outer = _end.get()
        _end.set(min(outer, time.monotonic() + seconds))
        try:
            yield
        finally:
            _end.set(outer)

    @property
    def left(self) -> float:
        """The seconds that are left; infinite outside of `within`."""
        return max(_end.get() - time.monotonic(), 0.0)

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        left = max(self.left, SHORTEST)
        if left < math.inf and (details.timeout is None or details.timeout > left):
            details = details._replace(timeout=left)
        return continuation(details, request)
