"""Standard input that ends when a run is stopped. Otherwise a read from a silent pipe or a terminal would
block forever, in a thread that no signal reaches."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class StoppableInput(io.RawIOBase):
    """Reads a file descriptor until its end or until `stop` is called. After that, a read raises
    KeyboardInterrupt, so that a partial line is never processed as a whole one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._wake_reader, self._wake_writer = os.pipe()

    def stop(self) -> None:
        os.write(self._wake_writer, b"\0")

    def close(self) -> None:
        if not self.closed:
            os.close(self._wake_reader)
            os.close(self._wake_writer)
        super().close()

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        ready, _, _ = select.select([self._descriptor, self._wake_reader], [], [])
        if self._wake_reader in ready:
            raise KeyboardInterrupt
        data = os.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def stoppable() -> Iterator[StoppableInput | None]:
    """Replaces sys.stdin. Yields None if it is not a real file (in a test, or closed)."""
    previous = sys.stdin
    try:
        raw = StoppableInput(previous.fileno())
    except (AttributeError, OSError, ValueError):
        yield None
        return
    with io.TextIOWrapper(io.BufferedReader(raw)) as replacement:
        sys.stdin = replacement
        try:
            yield raw
        finally:
            sys.stdin = previous
