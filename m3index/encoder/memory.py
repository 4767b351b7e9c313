"""Runs work on fewer inputs where memory does not suffice, whichever way torch says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from m3index.errors import M3IndexError

T = TypeVar("T")
Places = NDArray[np.int64]

# The caching allocator has an exception of its own. Libraries that allocate their work space (a handle of
# cuBLAS without room is "not initialized"), the driver, page-locked memory, MPS and CPUs only have a message.
_MESSAGES = re.compile(
    r"CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED"
    r"|CUBLAS_STATUS_NOT_INITIALIZED when calling .cublas(Lt)?Create"
    r"|(CUDA|HIP) (driver )?error: out of memory"
    r"|cudaErrorMemoryAllocation|hipErrorOutOfMemory"
    r"|MPS backend out of memory"
    r"|can't allocate memory|not enough memory: you tried to allocate"
)


def is_shortage(error: BaseException) -> bool:
    """Whether memory did not suffice, on the device or, page-locked or not, on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _MESSAGES.search(str(error)) is not None


def attempt(work: Callable[[], T]) -> T | None:
    """The result of `work`, or None if memory did not suffice. Then nothing of the attempt is kept.

    An exception keeps the frames that it passed, and with them all tensors of the attempt, until the `except`
    block ends. So the caches are emptied after it, and whoever tries again does so from here, outside it.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
    release()
    return None


def release() -> None:
    """Gives the cached memory that no tensor uses back to the devices and to the host."""
    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()
        empty_host_cache = getattr(torch.accelerator.memory, "empty_host_cache", None)  # newer releases
        if empty_host_cache is not None:
            empty_host_cache()


def in_parts(work: Callable[[Places], T], places: Places, too_large: Callable[[int], str]) -> Iterator[T]:
    """work(places), or where memory does not suffice the results for its halves, in order.

    Raises M3IndexError with the message `too_large(place)` for a single input that does not fit.
    """
    waiting = [places]
    while waiting:
        part = waiting.pop()
        result = attempt(lambda part=part: work(part))  # type: ignore[misc]
        if result is not None:
            yield result
        elif len(part) == 1:
            raise M3IndexError(too_large(int(part[0])))
        else:
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]


def no_room(device: torch.device, tokens: int) -> str:
    return (
        f"{device} does not have enough memory for one input of {tokens} tokens. "
        "Use shorter texts, another --device, or a smaller model."
    )
