"""The time that a call of the store may take, over all its repetitions."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from m3index.store.retry import SHORTEST


class Deadline(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
    """Ends each gRPC call when the time of its thread is over.

    pymilvus repeats a failed call with its whole timeout again, so that a call whose server answers just at
    the end of the timeout would take twice as long. A call that is sent at the very end still has `SHORTEST`.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Within it, all calls of this thread take at most `seconds` together, or what is left outside."""
        outer = self._end
        self._local.end = min(outer, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._local.end = outer

    @property
    def left(self) -> float:
        """The seconds that are left; infinite outside of `within`."""
        return max(self._end - time.monotonic(), 0.0)

    @property
    def _end(self) -> float:
        end: float = getattr(self._local, "end", math.inf)
        return end

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        left = max(self.left, SHORTEST)
        if left < math.inf and (details.timeout is None or details.timeout > left):
            details = details._replace(timeout=left)
        return continuation(details, request)
