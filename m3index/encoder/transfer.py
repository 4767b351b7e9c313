"""Copies between host and device that no thread waits for, through page-locked memory on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device. On CUDA the host goes on while it is copied."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensors: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[], None]]:
    """Copies on the host of tensors of one device, which are complete once the returned function returns."""
    if not tensors or tensors[0].device.type != "cuda":
        return [tensor.cpu() for tensor in tensors], _nothing
    with torch.cuda.device(tensors[0].device):
        hosts = [
            torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in tensors
        ]
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
    return hosts, done.synchronize


def _nothing() -> None:
    return
