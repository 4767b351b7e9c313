"""Standard input that ends when the run is told to stop: a read from a silent pipe or a terminal
would go on for ever, in a thread that no signal reaches."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class StoppableInput(io.RawIOBase):
    """Reads a file descriptor until its end, or until `stop` is called: then a read raises
    KeyboardInterrupt, so that half a line is never taken for a whole one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._woken, self._wake = os.pipe()

    def stop(self) -> None:
        os.write(self._wake, b"\0")

    def close(self) -> None:
        if not self.closed:
            os.close(self._woken)
            os.close(self._wake)
        super().close()

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        ready, _, _ = select.select([self._descriptor, self._woken], [], [])
        if self._woken in ready:
            raise KeyboardInterrupt
        data = os.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def stoppable() -> Iterator[StoppableInput | None]:
    """In place of sys.stdin; None where that is no real file (a test's, or closed)."""
    before = sys.stdin
    try:
        raw = StoppableInput(before.fileno())
    except (AttributeError, OSError, ValueError):
        yield None
        return
    with io.TextIOWrapper(io.BufferedReader(raw)) as instead:
        sys.stdin = instead
        try:
            yield raw
        finally:
            sys.stdin = before
