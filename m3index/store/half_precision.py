"""Dense vectors as a collection stores them: fp32, or fp16 and bf16 for half the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from m3index.types import FloatArray, Storage

ROUNDOFF: Mapping[Storage, float] = {"fp32": 0.0, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""The greatest relative error of a stored number: half a unit in the last of its 11 or 8 binary digits.
The inner product of a unit vector and its stored form differs from 1 by no more than this."""


def pack(vector: FloatArray, storage: Storage) -> Any:
    """The form for pymilvus: float32 (dim,), or the bytes of 16-bit floats (to the nearest, ties to even)."""
    if storage == "fp32":
        return np.asarray(vector, np.float32)
    if storage == "fp16":
        return np.asarray(vector, np.float16).tobytes()
    bits = np.ascontiguousarray(vector, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def unpack(value: Any, storage: Storage) -> FloatArray:
    """The output of `pack`, or a value read by pymilvus, as float32 (dim,)."""
    if storage == "fp32":
        return np.asarray(value, np.float32)
    data = value if isinstance(value, bytes) else b"".join(value)
    if storage == "fp16":
        return np.frombuffer(data, np.float16).astype(np.float32)
    return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)


def rounded(vector: FloatArray, storage: Storage) -> FloatArray:
    """The vector as it is read back."""
    return unpack(pack(vector, storage), storage)
