"""Reads the weights of BERT, RoBERTa and XLM-R straight from their safetensors files.

This keeps searches from a shell fast: importing transformers and building its model take longer than
importing torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from m3index.encoder.layout import Layout, hidden_size
from m3index.errors import MismatchError

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
    """The tensors of a model's files by their transformers names, each read on demand. Close after use.

    Raises MismatchError if a tensor that config.json requires is missing or has the wrong shape, or if a file
    is not in safetensors format.
    """

    def __init__(self, layout: Layout, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._open = ExitStack()
        self._files: dict[str, Any] = {}
        try:
            for path in layout.weights:
                file = self._open.enter_context(safe_open(path, "pt"))
                self._files |= dict.fromkeys(file.keys(), file)
        except (OSError, SafetensorError) as e:
            self.close()
            raise MismatchError(f"{path} cannot be read: {e}.") from e
        self._names = StoredNames(self._files)
        wrong = [name for name, shape in shapes(layout.config).items() if self._shape(name) != shape]
        if wrong:
            self.close()
            raise incomplete(layout, wrong)

    def __call__(self, name: str) -> Tensor:
        stored = self._names(name)
        tensor: Tensor = self._files[stored].get_tensor(stored)
        return tensor.to(self._device, self._dtype)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shape(self, name: str) -> tuple[int, ...] | None:
        stored = self._names(name)
        return tuple(self._files[stored].get_slice(stored).get_shape()) if stored in self._files else None
