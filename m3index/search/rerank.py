"""Reads query and text together, and reorders the first hits. Nothing of it is stored in the index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from m3index.encoder.base import Encoder
from m3index.errors import MissingHeadError, UsageError
from m3index.types import FloatArray, IntArray, SparseVector

M3_WEIGHTS: Mapping[str, float] = {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}
"""What the authors of BGE-M3 give as an example in FlagEmbedding's `compute_score`."""


class Reranker(Protocol):
    @property
    def name(self) -> str: ...

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """How well each text answers the query: (n,) float32, higher is better."""
        ...


def load_reranker(
    name: str, encoder: Callable[[], Encoder], weights: Mapping[str, float] | None = None
) -> Reranker:
    """`colbert` and `m3` use the encoder's own heads; any other name is a cross-encoder's.

    weights: of `m3` only, by the names of M3_WEIGHTS.
    """
    match name:
        case "colbert":
            return ColbertReranker(encoder())
        case "m3":
            return M3Reranker(encoder(), weights or M3_WEIGHTS)
    if weights is not None:
        raise UsageError("Weights of a reranker go with `m3`, which combines three scores.")
    from m3index.encoder.cross import CrossEncoder

    return CrossReranker(name, CrossEncoder.load(name))


class CrossScorer(Protocol):
    """A cross-encoder as encoder/ loads it."""

    def score(self, query: str, texts: Sequence[str]) -> FloatArray: ...


class CrossReranker:
    """A cross-encoder, such as BAAI/bge-reranker-v2-m3."""

    def __init__(self, name: str, scorer: CrossScorer) -> None:
        self.name = name
        self._scorer = scorer

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        return self._scorer.score(query, texts)


class ColbertReranker:
    """Late interaction by the encoder's multi-vector head."""

    name = "colbert"

    def __init__(self, encoder: Encoder) -> None:
        _needs_multi_vector(encoder, self.name)
        self._encoder = encoder

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        asked = self._encoder.encode_queries([query], lexical=False, multi_vector=True)
        found = self._encoder.encode_ids(_inputs(self._encoder, texts), lexical=False, multi_vector=True)
        assert asked.multi_vector is not None
        assert found.multi_vector is not None
        return late_interaction(asked.multi_vector[0], found.multi_vector)


class M3Reranker:
    """The three scores of BGE-M3 in one: sum of weight x score over the sum of the weights, as in
    FlagEmbedding's `compute_score`. It needs an encoder with all three heads."""

    name = "m3"

    def __init__(self, encoder: Encoder, weights: Mapping[str, float] = M3_WEIGHTS) -> None:
        _needs_multi_vector(encoder, self.name)
        if not encoder.info.lexical:
            raise MissingHeadError(
                f"Reranking by m3 needs a lexical head, which {encoder.info.name} has not; "
                "use --rerank colbert."
            )
        if set(weights) - set(M3_WEIGHTS):
            raise UsageError(f"The scores that m3 combines are {', '.join(M3_WEIGHTS)}.")
        values = [float(weights.get(name, 0.0)) for name in M3_WEIGHTS]
        if not (all(np.isfinite(values)) and min(values) >= 0 and sum(values) > 0):
            raise UsageError("The weights of m3 are numbers from 0 up, and not all are 0.")
        self._encoder = encoder
        self._weights = np.array(values, np.float32) / np.float32(sum(values))

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        asked = self._encoder.encode_queries([query], lexical=True, multi_vector=True)
        found = self._encoder.encode_ids(_inputs(self._encoder, texts), lexical=True, multi_vector=True)
        assert asked.lexical is not None
        assert found.lexical is not None
        assert asked.multi_vector is not None
        assert found.multi_vector is not None
        dense = found.dense @ asked.dense[0]
        wanted = asked.lexical.row(0)
        sparse = [lexical_score(wanted, found.lexical.row(i)) for i in range(len(texts))]
        colbert = late_interaction(asked.multi_vector[0], found.multi_vector)
        scores: FloatArray = self._weights @ np.stack([dense, np.array(sparse, np.float32), colbert])
        return scores


def late_interaction(query: FloatArray, texts: Sequence[FloatArray]) -> FloatArray:
    """For each text: the mean over the query's tokens of the greatest inner product with one of the
    text's tokens (FlagEmbedding's `colbert_score`). query: (q, width); texts: each (t, width)."""
    return np.array([(query @ text.T).max(axis=1).mean() for text in texts], np.float32)


def lexical_score(a: SparseVector, b: SparseVector) -> float:
    """The inner product of two lexical vectors: sum over shared tokens of weight x weight."""
    _, i, j = np.intersect1d(a.indices, b.indices, assume_unique=True, return_indices=True)
    return float(a.values[i] @ b.values[j])


def _inputs(encoder: Encoder, texts: Sequence[str]) -> list[IntArray]:
    """The texts' token ids as the encoder takes them.

    A stored passage was cut out of a longer token sequence; tokenised by itself it can be a token
    or two longer than the model takes. Those are left out, before the last special token.
    """
    limit = encoder.info.limit
    ids = [tokens.ids for tokens in encoder.tokenizer.documents(texts)]
    return [row if len(row) <= limit else np.concatenate([row[: limit - 1], row[-1:]]) for row in ids]


def _needs_multi_vector(encoder: Encoder, name: str) -> None:
    if not encoder.info.multi_vector:
        raise MissingHeadError(
            f"Reranking by {name} needs a multi-vector head, which {encoder.info.name} has not; "
            "use --rerank with the name of a cross-encoder."
        )
