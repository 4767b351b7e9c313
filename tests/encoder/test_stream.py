"""A stream of calls: in order, with full packs, and with every device at work. CPUs stand for GPUs."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3index.encoder import engine as engines
from m3index.encoder import hardware
from m3index.encoder.engine import Engine, Job
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.types import EncodedBatch, IntArray

BUDGET = 64


def inputs(lengths: Sequence[int], seed: int = 0) -> list[IntArray]:
    dice = np.random.default_rng(seed)
    return [np.array([0, *dice.integers(4, 60, n - 2), 2], np.int32) for n in lengths]


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, devices: int = 1, packs: int = 4) -> list[tuple[int, int]]:
    """Gives CPUs the waves and the depth of a GPU. Returns a list of (device, tokens) of each pack."""
    seen: list[tuple[int, int]] = []
    numbers = itertools.count()
    original = Engine.__init__

    def patched(self: Engine, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.wave_tokens = packs * self.budget
        number, forward = next(numbers), self._forward

        def counted(job: Job, *rest: Any) -> Any:
            seen.append((number, sum(map(len, job.rows))))
            return forward(job, *rest)

        self._forward = counted  # type: ignore[method-assign]

    def lane(self: Engine, wanted: Any) -> engines.Lane:
        return engines.Lane(self, wanted, 2)

    monkeypatch.setattr(Engine, "__init__", patched)
    monkeypatch.setattr(Engine, "lane", lane)
    monkeypatch.setattr(hardware, "devices", lambda _: [torch.device("cpu")] * devices)
    return seen


def small(path: Path) -> ModelEncoder:
    return load(str(path), precision="fp32", batch_tokens=BUDGET)


def same(a: EncodedBatch, b: EncodedBatch, tolerance: float = 0.0) -> None:
    np.testing.assert_allclose(a.dense, b.dense, atol=tolerance, rtol=0)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    assert a.lexical is not None
    assert b.lexical is not None
    np.testing.assert_array_equal(a.lexical.indptr, b.lexical.indptr)
    np.testing.assert_array_equal(a.lexical.indices, b.lexical.indices)
    np.testing.assert_allclose(a.lexical.values, b.lexical.values, atol=tolerance, rtol=0)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(3, 40), max_size=9), max_size=12),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_a_stream_gives_each_call_what_it_gets_alone_in_order(
    m3: Path, lengths: list[list[int]], devices: int, packs: int
) -> None:
    calls = [(i, inputs(call, i)) for i, call in enumerate(lengths)]
    alone = small(m3)
    with pytest.MonkeyPatch.context() as patch:
        as_on_a_gpu(patch, devices, packs)
        got = list(small(m3).encode_stream(iter(calls), lexical=True))
    assert [item for item, _ in got] == [item for item, _ in calls]
    for (_, batch), (_, ids) in zip(got, calls, strict=True):
        same(batch, alone.encode_ids(ids, lexical=True), 1e-5)
    assert not [t for t in threading.enumerate() if t.name == "m3index-device"]


def test_on_a_cpu_the_bits_do_not_depend_on_the_calls_around(m3: Path) -> None:
    encoder = small(m3)
    calls = [(i, inputs([5 + i % 7, 40, 12, 33][: 1 + i % 4], i)) for i in range(9)]
    for (_, ids), (_, batch) in zip(calls, encoder.encode_stream(calls, lexical=True), strict=True):
        same(batch, encoder.encode_ids(ids, lexical=True))


@pytest.mark.parametrize(("devices", "packs"), [(1, 4), (4, 1)])
def test_calls_that_just_exceed_a_pack_leave_no_crumbs(
    m3: Path, monkeypatch: pytest.MonkeyPatch, devices: int, packs: int
) -> None:
    seen = as_on_a_gpu(monkeypatch, devices, packs)
    calls = [(None, inputs([4] * (BUDGET // 4 + 1), i)) for i in range(40)]  # a pack and one input each
    assert len(list(small(m3).encode_stream(calls, lexical=True))) == 40
    sizes = [tokens for _, tokens in seen]
    assert max(sizes) <= BUDGET
    assert min(sizes) >= 0.75 * BUDGET
    assert len(sizes) <= 1.25 * 40 * (BUDGET + 4) / BUDGET


def test_packs_stay_in_flight_between_calls(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next pack begins before the results of the last ones are taken, also across calls."""
    as_on_a_gpu(monkeypatch, packs=1)
    launched, collected, in_flight = 0, 0, []
    forward, results = Engine.launch, Engine.results

    def launch(self: Engine, *args: Any) -> Iterator[Any]:
        nonlocal launched
        in_flight.append(launched - collected)
        launched += 1
        yield from forward(self, *args)

    def collect(self: Engine, *args: Any) -> Iterator[Any]:
        nonlocal collected
        collected += 1
        yield from results(self, *args)

    monkeypatch.setattr(Engine, "launch", launch)
    monkeypatch.setattr(Engine, "results", collect)
    list(small(m3).encode_stream([(None, inputs([BUDGET], i)) for i in range(10)], lexical=True))
    assert in_flight == [0, 1] + [2] * 8


def test_every_device_has_work_where_each_call_is_one_pack(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = as_on_a_gpu(monkeypatch, devices=3)
    list(small(m3).encode_stream([(None, inputs([BUDGET], i)) for i in range(60)], lexical=True))
    assert {device for device, _ in seen} == {0, 1, 2}


def test_a_slow_device_leaves_the_work_to_the_others(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = as_on_a_gpu(monkeypatch, devices=3)
    encoder = small(m3)
    encoder.prepare()
    assert encoder._engines is not None
    first, *others = encoder._engines
    forward, rest_is_begun = first._forward, threading.Event()

    def slow(*args: Any) -> Any:
        assert rest_is_begun.wait(20)
        return forward(*args)

    def fast(forward: Callable[..., Any], *args: Any) -> Any:
        result = forward(*args)
        if len(seen) >= 39:
            rest_is_begun.set()
        return result

    monkeypatch.setattr(first, "_forward", slow)
    for engine in others:
        monkeypatch.setattr(engine, "_forward", functools.partial(fast, engine._forward))
    list(encoder.encode_stream([(None, inputs([BUDGET], i)) for i in range(40)], lexical=True))
    devices = [device for device, _ in seen]
    assert len(devices) == 40
    assert devices.count(0) <= 1


def test_a_device_that_fails_ends_the_stream(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch, devices=2)
    encoder = small(m3)
    encoder.prepare()

    def broken(*_: Any) -> Any:
        raise RuntimeError("the device is gone")

    assert encoder._engines is not None
    for engine in encoder._engines:
        monkeypatch.setattr(engine, "_forward", broken)
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(encoder.encode_stream(((None, inputs([BUDGET])) for _ in range(1000)), lexical=True))
    assert not [t for t in threading.enumerate() if t.name == "m3index-device"]


@pytest.mark.parametrize("packs", [0, 4])
def test_an_error_of_the_calls_comes_after_the_results_before_it(
    m3: Path, monkeypatch: pytest.MonkeyPatch, packs: int
) -> None:
    as_on_a_gpu(monkeypatch, packs=packs)

    def calls() -> Iterator[tuple[int, list[IntArray]]]:
        yield 0, inputs([9])
        yield 1, []
        yield 2, inputs([7, 8])
        raise OSError("the corpus cannot be read")

    stream = small(m3).encode_stream(calls(), lexical=False)
    assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the corpus cannot be read"):
        next(stream)


def test_an_endless_stream_is_read_a_few_packs_ahead(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_gpu(monkeypatch)
    read = 0

    def endless() -> Iterator[tuple[int, list[IntArray]]]:
        nonlocal read
        while True:
            read += 1
            yield read, inputs([16, 16]) if read % 3 else []

    stream = small(m3).encode_stream(endless(), lexical=False)
    for number in range(1, 100):
        assert next(stream)[0] == number
        assert read - number < 40


def test_calls_without_inputs_pass_through_and_load_no_weights(m3: Path) -> None:
    encoder = small(m3)
    read = []

    def calls() -> Iterator[tuple[int, list[IntArray]]]:
        for i in range(3):
            read.append(i)
            yield i, []

    for i, (item, batch) in enumerate(encoder.encode_stream(calls(), lexical=True)):
        assert (item, len(batch), len(read)) == (i, 0, i + 1)  # at once
    assert encoder._engines is None


def test_a_multi_vector_does_not_keep_its_pack_in_memory(m3: Path) -> None:
    batch = small(m3).encode_ids(inputs([5, 9, 7]), lexical=False, multi_vector=True)
    assert batch.multi_vector is not None
    for array in batch.multi_vector:
        assert array.base is None
