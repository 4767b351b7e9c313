"""Reads the weights of BERT, RoBERTa and XLM-R straight from their safetensors files.

This keeps searches from a shell fast: importing transformers and building its model take longer than
importing torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from m3index.encoder import safetensors_file
from m3index.encoder.bert import StoredNames, incomplete, shapes
from m3index.encoder.layout import Layout
from m3index.encoder.safetensors_file import StoredTensor
from m3index.errors import MismatchError

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


class Weights:
    """The tensors of a model's files by their transformers names, mapped, so that only what is used is read.

    Those of the stored type keep the files' pages in place of a copy. Raises MismatchError if a tensor that
    config.json requires is missing or has the wrong shape, or if a file is not in safetensors format.
    """

    def __init__(self, layout: Layout, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._stored: dict[str, _MappedTensor] = {}
        for path in layout.weights:
            self._stored |= _mapped_tensors(path)
        self._names = StoredNames(self._stored)
        wrong = [name for name, shape in shapes(layout.config).items() if self._shape(name) != shape]
        if wrong:
            raise incomplete(layout, wrong)

    def __call__(self, name: str) -> Tensor:
        return self._stored[self._names(name)].read().to(self._device, self._dtype)

    def _shape(self, name: str) -> tuple[int, ...] | None:
        found = self._stored.get(self._names(name))
        return None if found is None else found.place.shape


@dataclass(frozen=True, slots=True)
class _MappedTensor:
    file: Tensor
    place: StoredTensor

    def read(self) -> Tensor:
        part, dtype = self.file[self.place.start : self.place.end], _DTYPES[self.place.dtype]
        if self.place.start % dtype.itemsize:
            part = part.clone()
        return part.view(dtype).view(self.place.shape)


def _mapped_tensors(path: Path) -> dict[str, _MappedTensor]:
    """The tensors of a safetensors file by their names there."""
    places = safetensors_file.tensors(path)
    try:
        file = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    except (OSError, RuntimeError) as error:
        raise MismatchError(f"{path} cannot be read: {error}.") from error
    return {name: _MappedTensor(file, place) for name, place in places.items()}


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Matrices one above the other, without a copy if they are so in a file that is mapped."""
    first, rows = parts[0], sum(len(part) for part in parts)
    ends = [part.storage_offset() + part.numel() for part in parts]
    adjacent = all(
        part.is_contiguous()
        and part.storage_offset() == end
        and part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        for part, end in zip(parts[1:], ends, strict=False)
    )
    if adjacent and first.is_contiguous():
        return first.as_strided((rows, *first.shape[1:]), first.stride())
    return torch.cat(list(parts))
