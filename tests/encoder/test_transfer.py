"""Copies that no thread waits for. There is no CUDA here: what torch is asked for is noted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from m3index.encoder.transfer import to_device, to_host

CUDA = torch.device("cuda", 1)


def test_on_a_cpu_nothing_is_copied() -> None:
    array = np.arange(4, dtype=np.int32)
    tensor = to_device(array, torch.device("cpu"))
    assert tensor.data_ptr() == array.ctypes.data
    (host,), ready = to_host([tensor])
    ready()
    assert host.data_ptr() == array.ctypes.data
    assert to_host([])[0] == []


def test_to_cuda_through_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def pin_memory(self: torch.Tensor) -> torch.Tensor:
        asked.append("pinned")
        return self

    def to(self: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        asked.append((args, options))
        return self

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", to)
    to_device(np.arange(4, dtype=np.int32), CUDA)
    assert asked == ["pinned", ((CUDA,), {"non_blocking": True})]


def test_from_cuda_into_page_locked_memory_with_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Event:
        def record(self) -> None:
            asked.append("recorded")

        def synchronize(self) -> None:
            asked.append("awaited")

    class OnCuda:
        device, shape, dtype = CUDA, (3, 2), torch.float32

    class Host:
        def copy_(self, source: Any, *, non_blocking: bool) -> Host:
            asked.append(("copied", non_blocking))
            return self

    def empty(shape: Any, *, dtype: torch.dtype, pin_memory: bool) -> Host:
        asked.append((shape, dtype, pin_memory))
        return Host()

    class OnDevice:
        def __init__(self, device: torch.device) -> None:
            asked.append(device)

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", OnDevice)
    monkeypatch.setattr(torch, "empty", empty)
    hosts, ready = to_host([OnCuda(), OnCuda()])  # type: ignore[list-item]
    one = [((3, 2), torch.float32, True), ("copied", True)]
    assert asked == [CUDA, *one, *one, "recorded"]
    assert len(hosts) == 2
    ready()
    assert asked[-1] == "awaited"
