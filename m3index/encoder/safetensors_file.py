"""Safetensors files in parts: written so that a model is never in memory as a whole, read where they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from m3index.encoder.layout import safetensors_header
from m3index.errors import MismatchError

Stored: TypeAlias = Literal["F16", "BF16", "F32"]
BYTES: dict[Stored, int] = {"F16": 2, "BF16": 2, "F32": 4}
_FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of floating-point numbers: bytes start to end of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by their names. Raises MismatchError if the header is not true."""
    header = safetensors_header(path)
    size, first = path.stat().st_size, 8 + len(header)
    found = {}
    try:
        for name, told in json.loads(header).items():
            if name != "__metadata__" and told["dtype"] in _FLOATS:
                shape = tuple(told["shape"])
                start, end = (first + offset for offset in told["data_offsets"])
                if end > size or end - start != math.prod(shape) * _FLOATS[told["dtype"]]:
                    raise ValueError(f"{name} is not where the header says")
                found[name] = StoredTensor(told["dtype"], shape, start, end)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MismatchError(f"{path} cannot be read: {error}.") from error
    return found


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
