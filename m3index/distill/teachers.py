"""Sources of a student's targets: a running teacher, its cached outputs, or BM25 weights."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from m3index.distill.data import BLOCK, Tokenised
from m3index.distill.losses import Outputs
from m3index.distill.network import Network
from m3index.types import FloatArray, IntArray

BM25_K1, BM25_B = 0.9, 0.4


class Teacher(Protocol):
    def outputs(self, places: NDArray[np.int64]) -> Outputs:
        """The target outputs for these inputs, per token for the outputs of tokens."""
        ...


class Online:
    """A teacher that runs during training."""

    def __init__(self, network: Network, inputs: Tokenised) -> None:
        self.network, self._inputs = network, inputs

    def outputs(self, places: NDArray[np.int64]) -> Outputs:
        with torch.no_grad():
            result: Outputs = self.network(self.network.batch(self._inputs.rows(places)))
        return result


class Bm25:
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

    def outputs(self, places: NDArray[np.int64]) -> Outputs:
        weights = np.concatenate([self.weights(row) for row in self._inputs.rows(places)])
        return Outputs(weights=torch.from_numpy(weights).to(self._device))

    def weights(self, ids: IntArray) -> FloatArray:
        """The target weight of each token of one input, (n,)."""
        _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
        tf = counts[inverse].astype(np.float32)
        norm = BM25_K1 * (1 - BM25_B + BM25_B * len(ids) / self._mean_length)
        weights: FloatArray = self._root_idf[ids] * tf * (BM25_K1 + 1) / (tf + np.float32(norm))
        return weights.astype(np.float32, copy=False)
