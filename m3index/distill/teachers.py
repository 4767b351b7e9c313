"""Sources of a student's targets: a running teacher, its cached outputs, or BM25 weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from m3index.distill.data import BLOCK, Tokenised
from m3index.distill.losses import Outputs, joined
from m3index.distill.network import Network, frozen
from m3index.encoder.hardware import Precision
from m3index.encoder.layout import Layout
from m3index.encoder.memory import in_parts, no_room
from m3index.encoder.transfer import to_device, to_host
from m3index.encoder.widening import Widening
from m3index.types import FloatArray, IntArray

BM25_K1, BM25_B = 0.9, 0.4

Pending: TypeAlias = Callable[[], Outputs]
"""Outputs that a device may still be computing; the call waits for them."""


class Teacher(ABC):
    @abstractmethod
    def begin(self, places: NDArray[np.int64]) -> Pending:
        """Begins to compute the target outputs for these inputs, per token for the outputs of tokens."""

    def outputs(self, places: NDArray[np.int64]) -> Outputs:
        return self.begin(places)()


class FrozenModel:
    """A model that teaches. What is not finite in its precision is computed again in the next wider one, and
    a batch that does not fit into memory in halves.

    modules: see `network.frozen`.
    """

    def __init__(
        self,
        layout: Layout,
        device: torch.device,
        precision: Precision,
        *,
        modules: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        self.device = device
        self._watched: Sequence[int] = ()

        def load(precision: Precision) -> Network:
            network = frozen(layout, device, precision, modules=modules, trust_remote_code=trust_remote_code)
            if self._watched:
                network.watch(self._watched)
            return network

        self._networks = Widening(load, precision, device, str(layout.root))

    @property
    def dim(self) -> int:
        return self._networks.model.dim

    def watch(self, numbers: Sequence[int]) -> None:
        """Adds the states after these layers, in this order, to all later outputs."""
        self._watched = numbers
        self._networks.model.watch(numbers)

    def begin(self, rows: Sequence[IntArray]) -> Pending:
        """Begins to compute the outputs for these token ids. What is awaited is that they are finite."""
        precision = self._networks.precision
        outputs, finite = self._launch(precision, rows)

        def wait() -> Outputs:
            nonlocal precision, outputs, finite
            while not finite():
                precision = self._networks.wider(precision)
                outputs, finite = self._launch(precision, rows)
            return outputs

        return wait

    def _launch(self, precision: Precision, rows: Sequence[IntArray]) -> tuple[Outputs, Callable[[], bool]]:
        network = self._networks.in_(precision)

        def work(places: NDArray[np.int64]) -> Outputs:
            with torch.no_grad():
                found: Outputs = network(network.batch([rows[i] for i in places]))
            return found

        parts = in_parts(work, np.arange(len(rows)), lambda place: no_room(self.device, len(rows[place])))
        outputs = joined(list(parts))
        flags, ready = to_host([torch.stack([torch.isfinite(x).all() for x in outputs.tensors()])])

        def finite() -> bool:
            ready()
            return bool(flags[0].numpy().all())

        return outputs, finite


class Online(Teacher):
    """A teacher that runs during training."""

    def __init__(self, model: FrozenModel, inputs: Tokenised) -> None:
        self.model, self._inputs = model, inputs

    def begin(self, places: NDArray[np.int64]) -> Pending:
        return self.model.begin(self._inputs.rows(places))


class Bm25(Teacher):
    """Lexical weights without a lexical teacher, whose inner product is BM25.

    A token of a text gets sqrt(idf) tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length)), at each of
    its positions. The idf of BM25 is split between query and text, because one head weights both. tf counts
    the model's own tokens; idf = ln(1 + (N - df + 0.5) / (df + 0.5)). Robertson and Zaragoza 2009, "The
    Probabilistic Relevance Framework", with Lucene's idf, k1 = 0.9, b = 0.4.
    """

    def __init__(self, inputs: Tokenised, vocabulary: int, silent: IntArray, device: torch.device) -> None:
        self._inputs, self._device = inputs, device
        df = np.zeros(vocabulary, np.int64)
        for first in range(0, len(inputs), BLOCK):
            for row in inputs.rows(range(first, min(first + BLOCK, len(inputs)))):
                df[np.unique(row)] += 1
        self._root_idf = np.sqrt(np.log1p((len(inputs) - df + 0.5) / (df + 0.5))).astype(np.float32)
        self._root_idf[silent] = 0.0
        self._mean_length = float(inputs.lengths.mean())

    def begin(self, places: NDArray[np.int64]) -> Pending:
        weights = np.concatenate([self.weights(row) for row in self._inputs.rows(places)])
        outputs = Outputs(weights=to_device(weights, self._device))
        return lambda: outputs

    def weights(self, ids: IntArray) -> FloatArray:
        """The target weight of each token of one input, (n,)."""
        _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
        tf = counts[inverse].astype(np.float32)
        norm = BM25_K1 * (1 - BM25_B + BM25_B * len(ids) / self._mean_length)
        weights: FloatArray = self._root_idf[ids] * tf * (BM25_K1 + 1) / (tf + np.float32(norm))
        return weights.astype(np.float32, copy=False)
