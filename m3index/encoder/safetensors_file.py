"""Writes a safetensors file in small parts, so that a model is never in memory as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

Stored: TypeAlias = Literal["F16", "BF16", "F32"]
BYTES: dict[Stored, int] = {"F16": 2, "BF16": 2, "F32": 4}


def write(
    path: Path,
    dtype: Stored,
    tensors: Sequence[tuple[str, tuple[int, ...]]],
    parts: Iterable[memoryview],
) -> None:
    """tensors: name and shape of each, all of one type. parts: their bytes, in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors:
        start, end = end, end + BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            file.write(part)
