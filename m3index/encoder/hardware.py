"""Which device, which precision, how many tokens at once."""

from __future__ import annotations

from collections.abc import Mapping
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
# What a pack that came out non-finite is tried in next: fp16 overflows at 65,504, bf16 does not.
WIDER: dict[Precision, Precision] = {"fp16": "bf16", "bf16": "fp32", "int8": "fp32"}

_CPU_TOKENS = 2048
_MOST_TOKENS = 65_536
_MEMORY_SHARE = 0.6


def devices(name: str) -> list[torch.device]:
    """`auto` (all CUDA devices, else mps, else cpu), `cpu`, `mps`, `cuda`, `cuda:0,cuda:1`."""
    if name == "auto":
        if torch.cuda.is_available():
            return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        return [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]
    found = [_device(part.strip()) for part in name.split(",")]
    if len(set(found)) < len(found):
        raise UsageError(f"--device {name}: a device is named twice.")
    return found


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: use auto, cpu, mps, cuda, or cuda:0,cuda:1.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = torch.device("cuda", device.index or 0)
        if (device.index or 0) >= count:
            raise UsageError(f"--device {name}: this machine has {count} CUDA devices that torch can use.")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: torch finds no Metal device here.")
    elif device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: use auto, cpu, mps, cuda, or cuda:0,cuda:1.")
    return device


def precision(name: str, device: torch.device, *, int8: bool = False) -> Precision:
    """`auto`: fp16 on CUDA (about 60 times closer to fp32 than bf16 at the same rate), bf16 on CPUs that
    compute in it, else fp32. int8: whether what is loaded can compute in it; it is never chosen by `auto`."""
    if name == "int8":
        if not int8:
            raise UsageError("--precision int8 is for encoding texts only: use auto here.")
        if device.type != "cpu":
            raise UsageError(f"--precision int8 is for CPUs, and this is {device}: use auto or --device cpu.")
        if not cpu_multiplies_int8():
            raise UsageError(
                "--precision int8 needs an x86 CPU with VNNI (avx512_vnni, avx_vnni or AMX), which this one "
                "lacks: use auto."
            )
        return "int8"
    if name == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if device.type == "cpu" and cpu_computes_bf16() else "fp32"
    for known in DTYPES:
        if name == known:
            return known
    raise UsageError(f"--precision {name}: use one of {', '.join(PRECISIONS)}.")


def cpu_computes_bf16() -> bool:
    """Whether this CPU multiplies in bf16 (avx512_bf16 or AMX); elsewhere bf16 is emulated and slower."""
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.11
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(probe is not None and probe() for probe in probes)


def cpu_multiplies_int8() -> bool:
    """Whether this CPU has int8 products that accumulate in 32 bits; without them oneDNN's saturate."""
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.11
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    return probe is not None and probe()


def bytes_per_token(config: Mapping[str, Any], precision: Precision) -> int:
    """What a token takes in the widest moment of a layer: query, key, value, the MLP, two residuals."""
    width = hidden_size(config)
    inner = int(config.get("intermediate_size", 4 * width))
    return (8 * width + 3 * inner) * (4 if precision in ("fp32", "int8") else 2) + 4 * width


def token_budget(name: str | int, device: torch.device, bytes_per_token: int) -> int:
    """Tokens of one pack. `auto`: from the device's free memory on CUDA; on CPUs enough to keep the
    matrix products busy, no more: what is in flight should stay near the caches."""
    if name != "auto":
        try:
            budget = int(name)
        except ValueError:
            budget = 0
        if budget < 1:
            raise UsageError(f"--batch-tokens {name}: a number of tokens, at least 1, or auto.")
        return budget
    if device.type != "cuda":
        return _CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    return max(1024, min(_MOST_TOKENS, int(free * _MEMORY_SHARE) // bytes_per_token))
