"""Work that does not fit is done in parts, whatever it was that said so, and nothing of it stays behind."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

from m3index.encoder import memory
from m3index.encoder.memory import Places, attempt, in_parts, is_shortage
from m3index.errors import M3IndexError

SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    # Page-locked memory and the driver.
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("HIP error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GiB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 1"),
    MemoryError("Unable to allocate 4.00 TiB for an array"),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasGemmEx(...)`"),
    torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("CUDA out of memory"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=str)
def test_every_kind_of_shortage_is_recognised(error: Exception) -> None:
    assert is_shortage(error)
    assert attempt(raising(error)) is None


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_not_taken_for_a_shortage(error: Exception) -> None:
    assert not is_shortage(error)
    with pytest.raises(type(error)):
        attempt(raising(error))


def test_a_real_shortage_of_this_machine() -> None:
    assert attempt(lambda: torch.empty(10**15)) is None
    assert attempt(lambda: np.empty(10**15)) is None


def raising(error: Exception) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


class Allocator:
    """Takes work on up to `room` inputs, and counts the tensors of failed attempts that are still alive."""

    def __init__(self, room: int) -> None:
        self.room, self.seen = room, []  # type: ignore[var-annotated]
        self.failed: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, places: Places) -> list[int]:
        self.seen.append((len(places), sum(tensor() is not None for tensor in self.failed)))
        activations = [torch.zeros(8) for _ in range(2)]
        if len(places) > self.room:
            self.failed += map(weakref.ref, activations)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return places.tolist()


def test_halves_of_halves_come_in_order_and_keep_nothing_of_what_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released: list[int] = []
    work = Allocator(room=2)

    def release() -> None:
        released.append(sum(tensor() is not None for tensor in work.failed))

    monkeypatch.setattr(memory, "release", release)
    got = list(in_parts(work, np.arange(16), str))
    assert [i for part in got for i in part] == list(range(16))
    assert [n for n, _ in work.seen] == [16, 8, 4, 2, 2, 4, 2, 2, 8, 4, 2, 2, 4, 2, 2]
    assert {alive for _, alive in work.seen} == {0}
    assert released == [0] * 7  # the caches are emptied after the exception has let go of the activations


def test_one_input_that_does_not_fit_is_named() -> None:
    places = in_parts(Allocator(room=0), np.array([7, 3]), lambda place: f"input {place} does not fit")
    with pytest.raises(M3IndexError, match="input 7 does not fit"):
        list(places)


def test_no_inputs_are_no_work() -> None:
    assert list(in_parts(Allocator(room=1), np.arange(0), str)) == [[]]
