"""Connects the stages of the pipeline: a generator that runs ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.05
JOIN_SECONDS = 10.0
"""How long the end of a pipeline waits for its thread. A batch takes about two seconds."""


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yields the same items, produced by a thread that is at most `depth` items ahead.

    An exception of `items` is raised here, after the items before it. When this generator is closed, the
    thread finishes its current item and closes `items`. It is waited for, but not forever: it may hang in a
    call to a store that does not answer.
    """
    ready: queue.Queue[object] = queue.Queue(depth)
    closed = threading.Event()

    def hand_over(item: object) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        last: object = _END
        try:
            for item in items:
                if not hand_over(item):
                    break
        except BaseException as error:
            last = _Failed(error)
        close = getattr(items, "close", None)
        if close is not None:
            close()
        hand_over(last)

    thread = threading.Thread(target=produce, name="m3index-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join(JOIN_SECONDS)
