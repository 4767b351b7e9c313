"""Chooses the device, the precision and the number of tokens per pack, and knows what a device computes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeAlias

import torch

from m3index.encoder.layout import hidden_size
from m3index.errors import UsageError

Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[str, ...] = ("auto", "fp32", "bf16", "fp16", "int8")
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
Card: TypeAlias = tuple[int, int]
"""The compute capability of a CUDA device: (7, 5) for a T4, (8, 0) for an A100, (9, 0) for an H100."""
AMPERE: Card = (8, 0)

_CPU_TOKENS = 2048
_MOST_TOKENS = 65_536
_MEMORY_SHARE = 0.6
_WORKERS = 8


def devices(name: str) -> list[torch.device]:
    """`auto` (all CUDA devices, else mps, else cpu), `cpu`, `mps`, `cuda`, `cuda:0,cuda:1`."""
    if name == "auto":
        if torch.cuda.is_available():
            return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        return [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]
    chosen = [_device(part.strip()) for part in name.split(",")]
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"--device {name} names a device twice. Name each device once.")
    return chosen


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: use auto, cpu, mps, cuda, or cuda:0,cuda:1.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = torch.device("cuda", device.index or 0)
        if (device.index or 0) >= count:
            raise UsageError(f"--device {name}: torch can use {count} CUDA devices on this machine.")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: torch finds no Metal device on this machine. Use auto or cpu.")
    elif device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: use auto, cpu, mps, cuda, or cuda:0,cuda:1.")
    return device


def worker_processes(asked: int | Literal["auto"], device: str) -> int:
    """How many processes cut documents. `auto`: none without CUDA, where the encoder needs the cores itself
    and one thread tokenises faster than it encodes; with CUDA up to 8 for each device, of the cores that the
    encoder and the store leave."""
    if asked != "auto":
        return asked
    cuda = sum(found.type == "cuda" for found in devices(device))
    return min(_WORKERS * cuda, max(1, usable_cores() - 2))


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def precision(name: str, device: torch.device, *, int8: bool = False) -> Precision:
    """`auto`: fp16 on CUDA (about 60 times closer to fp32 than bf16 at the same rate), bf16 on CPUs with bf16
    instructions, otherwise fp32. int8: whether the caller supports int8, which `auto` never chooses."""
    if name == "int8":
        if not int8:
            raise UsageError("--precision int8 is for encoding texts only. Use auto here.")
        if device.type != "cpu":
            raise UsageError(f"--precision int8 is for CPUs, and this is {device}. Use auto or --device cpu.")
        if not cpu_multiplies_int8():
            raise UsageError(
                "--precision int8 needs an x86 CPU with VNNI (avx512_vnni, avx_vnni or AMX), which this CPU "
                "does not have. Use auto."
            )
        return "int8"
    if name == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if computes_bf16(device) else "fp32"
    if name == "bf16" and device.type == "cuda" and not computes_bf16(device):
        raise UsageError(
            f"bf16 needs a card of compute capability 8.0 (A100, RTX 30) or later, which {device} is not. "
            "Use auto or fp32."
        )
    for known in DTYPES:
        if name == known:
            return known
    raise UsageError(f"--precision {name}: use one of {', '.join(PRECISIONS)}.")


def wider(precision: Precision, device: torch.device) -> Precision | None:
    """The precision to compute in again if an output is not finite; None if there is none. fp16 overflows at
    65,504, bf16 only where fp32 does. An emulated bf16 is slower than fp32, so it is left out."""
    if precision == "fp32":
        return None
    return "bf16" if precision == "fp16" and computes_bf16(device) else "fp32"


@cache
def capability(device: torch.device) -> Card | None:
    """The compute capability of a CUDA device. None for other devices."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def computes_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16. Others emulate it, which is slower than fp32, and
    torch.cuda.is_bf16_supported counts those too."""
    card = capability(device)
    if card is not None:
        return torch.version.hip is not None or card >= AMPERE
    return device.type == "cpu" and cpu_computes_bf16()


def sum_in_fp32(device: torch.device) -> None:
    """Has torch add the partial sums of fp16 products on CUDA in fp32, in the whole process. By default they
    may be rounded to fp16, or overflow, between two kernels."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def cpu_computes_bf16() -> bool:
    """Whether this CPU multiplies in bf16 (avx512_bf16 or AMX). Other CPUs emulate bf16, which is slower."""
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.11
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(probe is not None and probe() for probe in probes)


def cpu_multiplies_int8() -> bool:
    """Whether this CPU has int8 products that accumulate in 32 bits. Without them, oneDNN saturates."""
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.11
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    return probe is not None and probe()


def bytes_per_token(config: Mapping[str, Any], precision: Precision) -> int:
    """Peak memory per token within a layer: query, key, value, the MLP and two residuals."""
    width = hidden_size(config)
    inner = int(config.get("intermediate_size", 4 * width))
    return (8 * width + 3 * inner) * (4 if precision in ("fp32", "int8") else 2) + 4 * width


def token_budget(name: str | int, device: torch.device, bytes_per_token: int) -> int:
    """Tokens per pack. `auto` depends on free device memory on CUDA. On CPUs it is just large enough to keep
    the matrix products busy, so that the activations stay near the caches."""
    if name != "auto":
        try:
            budget = int(name)
        except ValueError:
            budget = 0
        if budget < 1:
            raise UsageError(f"--batch-tokens {name}: give a number of tokens, at least 1, or auto.")
        return budget
    if device.type != "cuda":
        return _CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    return max(1024, min(_MOST_TOKENS, int(free * _MEMORY_SHARE) // bytes_per_token))
