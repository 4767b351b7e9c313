"""Encodes an endless stream of calls: packs are filled across calls, and no device waits between them.

Calls are gathered into waves. The inputs of a wave are planned together, so that packs are full and hold
inputs of similar lengths. Packs of the next wave start while those of the last are in flight, and every
device takes the next pack as soon as it has room. The results come in the order of the calls.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from m3index.encoder import csr, packing
from m3index.encoder.base import Wanted
from m3index.encoder.engine import Engine, Job, PackResult
from m3index.types import EncodedBatch, FloatArray, IntArray, SparseRows

T = TypeVar("T")
Call = tuple[T, Sequence[IntArray]]

_WAVE_CALLS = 32
"""The most calls of one wave: calls without inputs, or with few, must not wait for many others."""


def encode(
    engines: Sequence[Engine], calls: Iterable[Call[T]], wanted: Wanted, dim: int
) -> Iterator[tuple[T, EncodedBatch]]:
    """The vectors of each call, in order. An error of `calls` is raised after the results before it."""
    source = _UntilError(calls)
    lanes: _Lanes = _OneDevice(engines[0], wanted) if len(engines) == 1 else _Devices(engines, wanted)
    budget = min(engine.budget for engine in engines)
    wave_tokens = sum(engine.wave_tokens for engine in engines)
    open_waves: deque[_Wave[T]] = deque()

    def arrived(results: Iterable[PackResult]) -> Iterator[tuple[T, EncodedBatch]]:
        for result in results:
            next(wave for wave in open_waves if wave.has(result)).add(result)
            while open_waves and open_waves[0].missing == 0:
                yield from open_waves.popleft().batches(dim, wanted)

    try:
        for wave in _waves(source, wave_tokens):
            if not wave.missing:  # it waits for what is in flight, but not for the next inputs
                yield from arrived(lanes.rest())
                yield from wave.batches(dim, wanted)
                continue
            open_waves.append(wave)
            for job in wave.jobs(budget, evenly=wave_tokens > 0):
                yield from arrived(lanes.put(job))
        yield from arrived(lanes.rest())
        if source.error is not None:
            raise source.error
    finally:
        lanes.close()


class _UntilError(Generic[T]):
    """The items before an error, and the error."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[T]:
        try:
            yield from self._items
        except Exception as error:
            self.error = error


class _Wave(Generic[T]):
    """Calls whose inputs are planned together. first: the number of its first input in the stream."""

    def __init__(self, first: int, calls: Sequence[Call[T]]) -> None:
        self._first, self._calls = first, calls
        self._rows = [row for _, rows in calls for row in rows]
        self._lengths = np.fromiter(map(len, self._rows), np.int32, len(self._rows))
        self._results: list[PackResult] = []
        self.missing = len(self._rows)

    @property
    def end(self) -> int:
        return self._first + len(self._rows)

    def jobs(self, budget: int, *, evenly: bool) -> Iterator[Job]:
        for places in packing.plan(self._lengths, budget, evenly=evenly):
            yield Job(places + self._first, [self._rows[i] for i in places])

    def has(self, result: PackResult) -> bool:
        return self._first <= int(result.places[0]) < self.end

    def add(self, result: PackResult) -> None:
        self._results.append(result)
        self.missing -= len(result.places)

    def batches(self, dim: int, wanted: Wanted) -> Iterator[tuple[T, EncodedBatch]]:
        """The vectors of each call. Only once nothing is missing."""
        encoded = self._assembled(dim, wanted)
        start = 0
        for item, rows in self._calls:
            yield item, encoded.part(start, start + len(rows))
            start += len(rows)

    def _assembled(self, dim: int, wanted: Wanted) -> EncodedBatch:
        results = self._results
        if not results:
            return wanted.of_nothing(dim)
        dense = np.empty((len(self._rows), dim), np.float32)
        for result in results:
            dense[result.places - self._first] = result.dense
        sparse: SparseRows | None = None
        if wanted.lexical:
            parts = [r.lexical for r in results if r.lexical is not None]
            order = [r.places - self._first for r in results]
            sparse = csr.join_rows(parts, np.concatenate(order))
        return EncodedBatch(
            dense,
            sparse,
            self._lengths,
            self._multi_vectors() if wanted.multi_vector else None,
        )

    def _multi_vectors(self) -> list[FloatArray]:
        vectors: list[FloatArray] = [np.empty((0, 0), np.float32)] * len(self._rows)
        for result in self._results:
            for place, matrix in zip(result.places - self._first, result.multi_vector or (), strict=True):
                vectors[place] = matrix
        return vectors


def _waves(calls: Iterable[Call[T]], tokens: int) -> Iterator[_Wave[T]]:
    """Gathers calls until a wave has `tokens` tokens; with 0, each call is a wave."""
    gathered: list[Call[T]] = []
    first = total = 0
    for call in calls:
        gathered.append(call)
        total += sum(map(len, call[1]))
        if total >= tokens or len(gathered) == _WAVE_CALLS:
            yield (wave := _Wave(first, gathered))
            first, total, gathered = wave.end, 0, []
    if gathered:
        yield _Wave(first, gathered)


class _Lanes(Protocol):
    def put(self, job: Job) -> Iterator[PackResult]:
        """Begins a job once a device has room; yields the results that are complete."""
        ...

    def rest(self) -> Iterator[PackResult]:
        """Waits for all jobs."""
        ...

    def close(self) -> None: ...


class _OneDevice:
    """The caller's thread works for one device."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._lane = engine.lane(wanted)

    def put(self, job: Job) -> Iterator[PackResult]:
        return self._lane.put(job)

    def rest(self) -> Iterator[PackResult]:
        while self._lane.busy:
            yield from self._lane.collect()

    def close(self) -> None:
        """Nothing outlives the generator."""


class _Devices:
    """A thread for each device, all of which take their jobs from one queue."""

    def __init__(self, engines: Sequence[Engine], wanted: Wanted) -> None:
        self._jobs: queue.Queue[Job] = queue.Queue(len(engines))
        self._done: queue.SimpleQueue[PackResult | BaseException] = queue.SimpleQueue()
        self._missing = 0
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(engine, wanted), name="m3index-device", daemon=True)
            for engine in engines
        ]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job) -> Iterator[PackResult]:
        self._missing += len(job.places)
        waiting = True
        while waiting:
            try:
                self._jobs.put(job, timeout=0.05)
                waiting = False
            except queue.Full:  # a device may have failed meanwhile
                pass
            while not self._done.empty():
                yield self._next()

    def rest(self) -> Iterator[PackResult]:
        while self._missing:
            yield self._next()

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def _next(self) -> PackResult:
        item = self._done.get()
        if isinstance(item, BaseException):
            raise item
        self._missing -= len(item.places)
        return item

    def _serve(self, engine: Engine, wanted: Wanted) -> None:
        try:
            lane = engine.lane(wanted)
            while not self._closed.is_set():
                try:
                    job = self._jobs.get(timeout=0 if lane.busy else 0.05)
                except queue.Empty:
                    results = lane.collect() if lane.busy else iter(())
                else:
                    results = lane.put(job)
                for result in results:
                    self._done.put(result)
        except BaseException as error:
            self._done.put(error)
