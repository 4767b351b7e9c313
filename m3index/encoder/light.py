"""A few short texts without torch, for a command that answers one question.

To import torch takes longer than all else of a search from a shell. This is the forward pass of BERT, RoBERTa
and XLM-R in numpy, on the CPU and in float32: half-precision weights are widened a few rows at a time, and
what they give lies nearer to that of a model in fp32 than what the products of bf16 give.

States are (width, tokens), so that the large factor of each product is the one that lies in memory in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3index.encoder import csr, packing, prepared_weights, safetensors_file
from m3index.encoder.base import Wanted
from m3index.encoder.bert import (
    ACTIVATIONS,
    Activation,
    StoredNames,
    attention_heads,
    is_bert,
    layer_names,
    layer_norm_eps,
    shapes,
)
from m3index.encoder.layout import Layout, NormalizeSpec, position_padding
from m3index.encoder.packing import Pack
from m3index.encoder.safetensors_file import StoredTensor
from m3index.errors import MismatchError
from m3index.types import EncodedBatch, FloatArray, IntArray, SparseRows

_MULTIPLICATIONS = 60e9  # take about as long as to import torch and to load the weights
_CHUNK = 1 << 18  # weights that are widened at a time: 1 MiB, which stays in the CPU cache
_POOLINGS = ("cls", "mean")


class LightModel:
    """The weights of a model, mapped. Thread-safe."""

    def __init__(self, layout: Layout, silent_ids: IntArray) -> None:
        """layout: one that `fits`. Raises MismatchError for weights that do not fit config.json."""
        self._layout, self._silent = layout, silent_ids
        self._config = layout.config
        self._weights = _MappedWeights(layout.weights)
        required = shapes(layout.config)
        if any(self._weights.shape(name) != shape for name, shape in required.items()):
            raise MismatchError(f"{layout.backbone} lacks weights that its config.json requires.")
        self._head = _MappedWeights([layout.lexical]) if layout.lexical else None
        matrices = (shape for name, shape in required.items() if "encoder.layer" in name and len(shape) > 1)
        self._tokens_left = int(_MULTIPLICATIONS / max(1, sum(out * inputs for out, inputs in matrices)))

    def encode(self, rows: Sequence[IntArray], wanted: Wanted) -> EncodedBatch | None:
        """rows: one (n_i,) int32 array or more. None for whoever has torch: if these are more tokens than it
        pays to do without, or if an output is not finite."""
        tokens = sum(map(len, rows))
        if tokens > self._tokens_left:
            return None
        self._tokens_left -= tokens
        pack = packing.pack(rows, position_padding(self._config))
        with np.errstate(over="ignore", invalid="ignore"):
            hidden = self._hidden(pack)
            dense = self._pooled(hidden, pack.bounds, wanted.skip)
            token_weights = self._token_weights(hidden) if wanted.lexical else None
        if not np.isfinite(dense).all() or not (token_weights is None or np.isfinite(token_weights).all()):
            return None
        lexical: SparseRows | None = None
        if token_weights is not None:
            lexical = csr.lexical_rows(token_weights, pack.ids, pack.bounds, self._silent)
        return EncodedBatch(dense, lexical, pack.lengths.astype(np.int32), None)

    def _hidden(self, pack: Pack) -> FloatArray:
        """(width, tokens)"""
        kinds = np.zeros(1, np.int32)
        words, places, kind = (
            self._weights.rows(f"embeddings.{name}_embeddings.weight", ids)
            for name, ids in (("word", pack.ids), ("position", pack.positions), ("token_type", kinds))
        )
        x = self._normalised(np.ascontiguousarray((words + kind + places).T), "embeddings")
        for name in layer_names(self._config):
            mixed = self._product(f"{name}.attention.output.dense", self._attended(x, name, pack.bounds))
            x = self._normalised(mixed + x, f"{name}.attention.output")
            activate = _FUNCTIONS[ACTIVATIONS[self._config.get("hidden_act", "gelu")]]
            inner = activate(self._product(f"{name}.intermediate.dense", x))
            x = self._normalised(self._product(f"{name}.output.dense", inner) + x, f"{name}.output")
        return x

    def _attended(self, x: FloatArray, layer: str, bounds: IntArray) -> FloatArray:
        heads = attention_heads(self._config)
        query, key, value = (
            self._product(f"{layer}.attention.self.{part}", x).reshape(heads, -1, x.shape[1])
            for part in ("query", "key", "value")
        )
        out = np.empty_like(query)
        for start, end in pairwise(bounds.tolist()):
            q, k, v = (part[..., start:end] for part in (query, key, value))
            scores = k.transpose(0, 2, 1) @ q / np.float32(query.shape[1] ** 0.5)  # (heads, keys, queries)
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[..., start:end] = v @ (scores / scores.sum(axis=1, keepdims=True))
        return out.reshape(x.shape)

    def _product(self, name: str, x: FloatArray) -> FloatArray:
        """W x + b. x (inputs, tokens) -> (outputs, tokens)"""
        bias = self._weights.whole(f"{name}.bias")
        out = np.empty((len(bias), x.shape[1]), np.float32)
        for start, rows in self._weights.chunks(f"{name}.weight"):
            np.matmul(rows, x, out=out[start : start + len(rows)])
        out += bias[:, None]
        return out

    def _normalised(self, x: FloatArray, name: str) -> FloatArray:
        weight, bias = (
            self._weights.whole(f"{name}.LayerNorm.{part}")[:, None] for part in ("weight", "bias")
        )
        x = x - x.mean(axis=0)
        deviation = np.sqrt(np.square(x).mean(axis=0) + np.float32(layer_norm_eps(self._config)))
        normalised: FloatArray = x / deviation * weight + bias
        return normalised

    def _pooled(self, hidden: FloatArray, bounds: IntArray, skip: int) -> FloatArray:
        """See `heads.pool`."""
        parts = []
        for mode in self._layout.pooling:
            pooled = np.empty((len(bounds) - 1, len(hidden)), np.float32)
            for i, (start, end) in enumerate(pairwise(bounds.tolist())):
                first = start + skip if end - start > skip else start
                pooled[i] = hidden[:, first] if mode == "cls" else hidden[:, first:end].mean(axis=1)
            parts.append(pooled)
        vectors = np.concatenate(parts, axis=1)[:, : self._layout.dim]
        norms: FloatArray = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.maximum(norms, np.float32(1e-12))).astype(np.float32, copy=False)

    def _token_weights(self, hidden: FloatArray) -> FloatArray | None:
        if self._head is None:
            return None
        weights: FloatArray = self._head.whole("weight")[0] @ hidden + self._head.whole("bias")[0]
        return np.maximum(weights, 0)


def light_model(layout: Layout, silent_ids: IntArray) -> LightModel | None:
    """The model, if this forward pass can compute it from files that need no torch. Otherwise None, and
    whoever loads it with torch says what is wrong with it, if anything is."""
    plain = all(isinstance(module, NormalizeSpec) for module in layout.modules)
    if not is_bert(layout.config) or not plain or not set(layout.pooling) <= set(_POOLINGS):
        return None
    readable = prepared_weights.found(layout)
    try:
        return None if readable is None else LightModel(readable, silent_ids)
    except (MismatchError, OSError):
        return None


class _MappedWeights:
    """Tensors of safetensors files by their transformers names, as float32."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._stored: dict[str, tuple[NDArray[np.uint8], StoredTensor]] = {}
        for path in paths:
            file = np.memmap(path, np.uint8, "r")
            self._stored |= {name: (file, t) for name, t in safetensors_file.tensors(path).items()}
        self._names = StoredNames(self._stored)

    def shape(self, name: str) -> tuple[int, ...] | None:
        found = self._stored.get(self._names(name))
        return None if found is None else found[1].shape

    def whole(self, name: str) -> FloatArray:
        return _widened(*self._array(name))

    def rows(self, name: str, chosen: IntArray) -> FloatArray:
        array, dtype = self._array(name)
        return _widened(array[chosen], dtype)

    def chunks(self, name: str) -> Iterator[tuple[int, FloatArray]]:
        """The rows of a matrix, some at a time, each with the number of its first row. They are valid until
        the next ones."""
        array, dtype = self._array(name)
        step = max(1, _CHUNK // array.shape[1])
        room = np.zeros((min(step, len(array)), array.shape[1]), np.float32)
        for start in range(0, len(array), step):
            some = array[start : start + step]
            yield start, _widened(some, dtype, room[: len(some)])

    def _array(self, name: str) -> tuple[NDArray[Any], str]:
        file, place = self._stored[self._names(name)]
        part = file[place.start : place.end]
        return part.view(_TYPES[place.dtype]).reshape(place.shape), place.dtype


_TYPES: Mapping[str, type[np.generic]] = {
    "F16": np.float16, "BF16": np.uint16, "F32": np.float32, "F64": np.float64
}  # fmt: skip


def _widened(array: NDArray[Any], dtype: str, room: FloatArray | None = None) -> FloatArray:
    """As float32. room: an array of the same shape for the result; for bf16, its low halves must be 0."""
    if dtype == "F32":
        return np.asarray(array, np.float32)
    room = np.zeros(array.shape, np.float32) if room is None else room
    if dtype == "BF16":  # the high half of a float32
        halves = room.view(np.uint16).reshape(*array.shape, 2)
        halves[..., 1] = array
    else:
        room[...] = array
    return room


def _erf(x: FloatArray) -> FloatArray:
    """With an error below 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    sum_ = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        sum_ = (sum_ + np.float32(factor)) * t
    out: FloatArray = np.copysign(1 - sum_ * np.exp(-np.square(x)), x)
    return out


def _gelu(x: FloatArray) -> FloatArray:
    out: FloatArray = x * (1 + _erf(x * np.float32(0.5**0.5))) * np.float32(0.5)
    return out


def _gelu_tanh(x: FloatArray) -> FloatArray:
    inner = np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)
    out: FloatArray = x * (1 + np.tanh(inner)) * np.float32(0.5)
    return out


def _relu(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0)


_FUNCTIONS: Mapping[Activation, Callable[[FloatArray], FloatArray]] = {
    "gelu": _gelu, "gelu_tanh": _gelu_tanh, "relu": _relu
}  # fmt: skip
