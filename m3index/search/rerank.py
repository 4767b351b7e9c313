"""Rerankers, which read query and text together to reorder the first hits. They store nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from m3index.encoder.base import Encoder
from m3index.errors import MissingHeadError, UsageError
from m3index.search.weights import M3_WEIGHTS
from m3index.types import FloatArray, IntArray, SparseVector


class Reranker(Protocol):
    @property
    def name(self) -> str: ...

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """The relevance of each text: (n,) float32, higher is better."""
        ...


def load_reranker(
    encoder: Callable[[], Encoder], name: str, weights: Mapping[str, float] | None = None
) -> Reranker:
    """A reranker by name: `colbert` and `m3` use the heads of the encoder; any other is a cross-encoder.

    weights: for `m3` only, with the names of M3_WEIGHTS. Raises UsageError for invalid weights,
    MissingHeadError, and ModelNotFoundError for an unknown cross-encoder.
    """
    match name:
        case "colbert":
            return ColbertReranker(encoder())
        case "m3":
            return M3Reranker(encoder(), weights or M3_WEIGHTS)
    if weights is not None:
        raise UsageError("rerank_weights is only for the reranker m3, which combines three scores.")
    from m3index.encoder.cross import CrossEncoder

    return CrossReranker(name, CrossEncoder.load(name))


class CrossScorer(Protocol):
    """A cross-encoder as loaded by `encoder/`."""

    def score(self, query: str, texts: Sequence[str]) -> FloatArray: ...


class CrossReranker:
    """A cross-encoder, such as BAAI/bge-reranker-v2-m3."""

    def __init__(self, name: str, scorer: CrossScorer) -> None:
        self.name = name
        self._scorer = scorer

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        return self._scorer.score(query, texts)


class ColbertReranker:
    """Late interaction with the encoder's multi-vector head. Raises MissingHeadError without one."""

    name = "colbert"

    def __init__(self, encoder: Encoder) -> None:
        _needs_multi_vector(encoder, self.name)
        self._encoder = encoder

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        query_batch = self._encoder.encode_queries([query], lexical=False, multi_vector=True)
        text_batch = self._encoder.encode_ids(_inputs(self._encoder, texts), lexical=False, multi_vector=True)
        assert query_batch.multi_vector is not None
        assert text_batch.multi_vector is not None
        return late_interaction(query_batch.multi_vector[0], text_batch.multi_vector)


class M3Reranker:
    """The three scores of BGE-M3 combined: sum of weight x score over the sum of the weights, as in
    FlagEmbedding's `compute_score`. Raises MissingHeadError unless the encoder has all three heads, and
    UsageError for invalid weights."""

    name = "m3"

    def __init__(self, encoder: Encoder, weights: Mapping[str, float] = M3_WEIGHTS) -> None:
        _needs_multi_vector(encoder, self.name)
        if not encoder.info.lexical:
            raise MissingHeadError(
                f"The reranker m3 needs a lexical head, which {encoder.info.name} lacks. Use colbert."
            )
        if set(weights) - set(M3_WEIGHTS):
            raise UsageError(f"rerank_weights takes weights for {', '.join(M3_WEIGHTS)}.")
        values = [float(weights.get(name, 0.0)) for name in M3_WEIGHTS]
        if not (all(np.isfinite(values)) and min(values) >= 0 and sum(values) > 0):
            raise UsageError("The weights of m3 must be numbers from 0 up, at least one of them above 0.")
        self._encoder = encoder
        self._weights = np.array(values, np.float32) / np.float32(sum(values))

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        query_batch = self._encoder.encode_queries([query], lexical=True, multi_vector=True)
        text_batch = self._encoder.encode_ids(_inputs(self._encoder, texts), lexical=True, multi_vector=True)
        assert query_batch.lexical is not None
        assert text_batch.lexical is not None
        assert query_batch.multi_vector is not None
        assert text_batch.multi_vector is not None
        dense = text_batch.dense @ query_batch.dense[0]
        query_weights = query_batch.lexical.row(0)
        sparse = [lexical_score(query_weights, text_batch.lexical.row(i)) for i in range(len(texts))]
        colbert = late_interaction(query_batch.multi_vector[0], text_batch.multi_vector)
        scores: FloatArray = self._weights @ np.stack([dense, np.array(sparse, np.float32), colbert])
        return scores


def late_interaction(query: FloatArray, texts: Sequence[FloatArray]) -> FloatArray:
    """For each text: the mean over the query's tokens of the largest inner product with a token of
    the text (FlagEmbedding's `colbert_score`). query: (q, width); texts: each (t, width)."""
    return np.array([(query @ text.T).max(axis=1).mean() for text in texts], np.float32)


def lexical_score(a: SparseVector, b: SparseVector) -> float:
    """The inner product of two lexical vectors: the sum over shared tokens of weight x weight."""
    _, i, j = np.intersect1d(a.indices, b.indices, assume_unique=True, return_indices=True)
    return float(a.values[i] @ b.values[j])


def _inputs(encoder: Encoder, texts: Sequence[str]) -> list[IntArray]:
    """The token ids of the texts, within the encoder's limit.

    A stored passage was cut from a longer token sequence. Tokenised on its own, it can exceed the limit
    by a token or two, which are dropped before the last special token.
    """
    limit = encoder.info.limit
    ids = [tokens.ids for tokens in encoder.tokenizer.documents(texts)]
    return [row if len(row) <= limit else np.concatenate([row[: limit - 1], row[-1:]]) for row in ids]


def _needs_multi_vector(encoder: Encoder, name: str) -> None:
    if not encoder.info.multi_vector:
        raise MissingHeadError(
            f"The reranker {name} needs a multi-vector head, which {encoder.info.name} lacks. "
            "Use a cross-encoder."
        )
