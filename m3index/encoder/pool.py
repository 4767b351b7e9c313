"""Cuts documents in several processes, for streams where one core cannot keep a GPU busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from m3index.corpus.cut import Cuts, cut
from m3index.corpus.windows import PassageSize, Text
from m3index.encoder.layout import Layout
from m3index.encoder.tokens import ModelTokenizer
from m3index.process import Process

T = TypeVar("T")

_AHEAD = 2
"""How many calls are cut ahead for each process: the one at work, and the next."""


class TokenizerPool(ModelTokenizer):
    """A `ModelTokenizer` whose `cuts` runs in processes.

    processes: tells their number at the first call; with 0, this process cuts by itself. They start then,
    and end at `close` or with this process.
    """

    def __init__(self, layout: Layout, processes: Callable[[], int], *, prepare: bool = False) -> None:
        super().__init__(layout, prepare=prepare)
        self._layout, self._processes = layout, processes
        self._pool: _Pool | None = None
        self._starting = threading.Lock()

    def cuts(self, calls: Iterable[tuple[T, Sequence[Text]]], size: PassageSize) -> Iterator[tuple[T, Cuts]]:
        pool: _Pool | None = None
        pending: deque[tuple[T, Future[Cuts]]] = deque()
        try:
            for item, texts in calls:
                if pool is None and texts:
                    pool = self._started()
                if pool is None or pool.size == 0 or not (texts or pending):
                    yield item, cut(texts, self, size)
                    continue
                pending.append((item, pool.cut(texts, size)))
                while pending and (len(pending) > _AHEAD * pool.size or pending[0][1].done()):
                    item, found = pending.popleft()
                    yield item, found.result()
            while pending:
                item, found = pending.popleft()
                yield item, found.result()
        finally:
            for _, found in pending:
                found.cancel()

    def close(self) -> None:
        with self._starting:
            if self._pool is not None:
                self._pool.close()
            self._pool = None

    def _started(self) -> _Pool:
        with self._starting:
            if self._pool is None:
                self._pool = _Pool(self._layout, self._processes())
            return self._pool


class _Pool:
    """Processes, each with a thread that hands it one task after the other."""

    def __init__(self, layout: Layout, size: int) -> None:
        self.size = size
        self.processes = [_started(layout) for _ in range(size)]
        self._free = deque(self.processes)
        self._threads = ThreadPoolExecutor(max(size, 1), thread_name_prefix="m3index-cut")

    def cut(self, texts: Sequence[Text], size: PassageSize) -> Future[Cuts]:
        return self._threads.submit(self._cut, texts, size)

    def _cut(self, texts: Sequence[Text], size: PassageSize) -> Cuts:
        process = self._free.popleft()  # as many as there are threads
        try:
            process.send((texts, size))
            cuts: Cuts = process.receive()
            return cuts
        finally:
            self._free.append(process)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for process in self.processes:
            process.close()


def _started(layout: Layout) -> Process:
    process = Process("m3index.encoder.worker:cut_texts", "splits and tokenises documents")
    process.send(layout)
    return process
