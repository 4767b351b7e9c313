"""Reads the weights of BERT, RoBERTa and XLM-R straight from their safetensors files.

This keeps searches from a shell fast: importing transformers and building its model take longer than
importing torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m3index.encoder.layout import Layout, hidden_size, safetensors_header
from m3index.errors import MismatchError

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}

_WORDS = "embeddings.word_embeddings.weight"
_FIRST_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}  # from TensorFlow


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every weight that config.json requires except the pooler, which no embedding depends on."""
    width, inner = hidden_size(config), int(config.get("intermediate_size", 3072))
    norm = {"LayerNorm.weight": (width,), "LayerNorm.bias": (width,)}
    required: dict[str, tuple[int, ...]] = {
        _WORDS: (int(config.get("vocab_size", 30522)), width),
        "embeddings.position_embeddings.weight": (int(config.get("max_position_embeddings", 512)), width),
        "embeddings.token_type_embeddings.weight": (int(config.get("type_vocab_size", 2)), width),
        **{f"embeddings.{name}": shape for name, shape in norm.items()},
    }
    linear = {
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    for i in range(int(config.get("num_hidden_layers", 12))):
        layer = f"encoder.layer.{i}"
        for name, shape in linear.items():
            required |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        for place in ("attention.output", "output"):
            required |= {f"{layer}.{place}.{name}": shape for name, shape in norm.items()}
    return required


class StoredNames:
    """Maps the name of a weight in transformers to its name in a checkpoint, which may have a prefix."""

    def __init__(self, stored: Collection[str]) -> None:
        self._stored = stored
        words = next((name for name in stored if name.endswith(_WORDS)), _WORDS)
        self._prefix = words.removesuffix(_WORDS)

    def __call__(self, name: str) -> str:
        full = self._prefix + name
        for current, original in _FIRST_NAMES.items():
            if full not in self._stored:
                full = full.replace(current, original)
        return full


def incomplete(layout: Layout, missing: Sequence[str]) -> MismatchError:
    return MismatchError(
        f"{layout.backbone} lacks {len(missing)} weights that its config.json requires, such as "
        f"{missing[0]}. Check that the directory holds the complete model."
    )


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
        return None if found is None else found.shape


@dataclass(frozen=True, slots=True)
class _MappedTensor:
    file: Tensor
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    def read(self) -> Tensor:
        part = self.file[self.start : self.end]
        if self.start % self.dtype.itemsize:
            part = part.clone()
        return part.view(self.dtype).view(self.shape)


def _mapped_tensors(path: Path) -> dict[str, _MappedTensor]:
    """The tensors of a safetensors file by their names there."""
    header = safetensors_header(path)
    size, first = path.stat().st_size, 8 + len(header)
    try:
        file = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        tensors = {}
        for name, told in json.loads(header).items():
            if name != "__metadata__" and told["dtype"] in _DTYPES:
                dtype, shape = _DTYPES[told["dtype"]], tuple(told["shape"])
                start, end = (first + offset for offset in told["data_offsets"])
                if end > size or end - start != math.prod(shape) * dtype.itemsize:
                    raise ValueError(f"{name} is not where the header says")
                tensors[name] = _MappedTensor(file, dtype, shape, start, end)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MismatchError(f"{path} cannot be read: {error}.") from error
    return tensors


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
