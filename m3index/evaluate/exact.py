"""Exact rankings of a leg: all rows of a collection are scanned, and each is compared with each query. Memory
is bounded by the queries and a block of rows."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from m3index import schema
from m3index.schema import CollectionSpec
from m3index.search.fusion import Ranking
from m3index.store.analyzer import STEMS, terms
from m3index.store.base import QueryVector, Store, StoredRow
from m3index.store.filter import Compare, Filter
from m3index.store.half_precision import rounded
from m3index.types import JOINED, Leg, joined, key_of_passage

BLOCK = 1_000
"""Rows in one block."""

Scores: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ask:
    """A query of a leg. own: a condition that its documents must meet, besides the filter of the scan."""

    vector: QueryVector
    own: Compare | None = None


def can_scan(spec: CollectionSpec, leg: Leg) -> bool:
    """Whether the client can compute the scores of a leg. The words of an analyzer of the server only the
    server knows."""
    return leg is not Leg.BM25 or spec.analyzer == STEMS


def scan(
    store: Store,
    collection: str,
    spec: CollectionSpec,
    leg: Leg,
    asks: Sequence[Ask],
    depth: int,
    where: Filter | None = None,
) -> list[Ranking]:
    """The `depth` best documents of each query, each by its best passage, by score descending, then key.

    Call only if `can_scan`. Raises StoreError.
    """
    scorer = _scorer(store, collection, spec, leg, [ask.vector for ask in asks])
    own = _Own([ask.own for ask in asks])
    best = [_Best(depth) for _ in asks]
    for rows in _blocks(store.scan(collection, where, [*scorer.fields, *own.fields])):
        scores = scorer(rows)
        scores[~own.met(rows)] = -np.inf
        keys = [row["passage_id"] for row in rows]
        for column, documents in enumerate(best):
            documents.offer(scores[:, column], keys)
    return [documents.ranking(leg) for documents in best]


def _blocks(rows: Iterable[StoredRow]) -> Iterator[list[StoredRow]]:
    remaining = iter(rows)
    while block := list(islice(remaining, BLOCK)):
        yield block


class _Best:
    """The best documents so far, each by its best passage."""

    def __init__(self, depth: int) -> None:
        self.depth, self.least = depth, -np.inf
        self.passages: dict[str, tuple[float, str]] = {}

    def offer(self, scores: Scores, passages: Sequence[str]) -> None:
        """The scores of a block; -inf if the row does not count."""
        found = np.flatnonzero((scores >= self.least) & (scores > -np.inf))
        order = found[np.argsort(-scores[found], kind="stable")]
        seen: set[str] = set()
        last = -np.inf
        for i in order:
            score, passage = float(scores[i]), passages[i]
            if len(seen) >= self.depth and score < last:
                break  # there are enough better documents in this block alone
            key, last = key_of_passage(passage), score
            seen.add(key)
            known = self.passages.get(key)
            if known is None or (-score, passage) < (-known[0], known[1]):
                self.passages[key] = (score, passage)
        if len(self.passages) > self.depth:
            kept = heapq.nsmallest(self.depth, self.passages.items(), key=_order)
            self.passages, self.least = dict(kept), kept[-1][1][0]

    def ranking(self, leg: Leg) -> Ranking:
        ordered = sorted(self.passages.items(), key=_order)
        return Ranking(
            ids=tuple(key for key, _ in ordered),
            scores=tuple(score for _, (score, _) in ordered),
            passages=tuple(passage for _, (_, passage) in ordered),
            leg=leg,
            depth=self.depth,
        )


def _order(item: tuple[str, tuple[float, str]]) -> tuple[float, str]:
    """By score descending, then key of the passage, as stores order their candidates."""
    return -item[1][0], item[1][1]


class _Own:
    """The own conditions of the queries: equality with one value of a field."""

    def __init__(self, conditions: Sequence[Compare | None]) -> None:
        self.free = np.array([condition is None for condition in conditions], bool)
        self.by_field: dict[str, dict[Any, list[int]]] = {}
        for number, condition in enumerate(conditions):
            if condition is not None:
                self.by_field.setdefault(condition.field, {}).setdefault(condition.value, []).append(number)

    @property
    def fields(self) -> list[str]:
        return list(self.by_field)

    def met(self, rows: Sequence[StoredRow]) -> NDArray[np.bool_]:
        """Whether each row meets the condition of each query."""
        met = np.tile(self.free, (len(rows), 1))
        for field, values in self.by_field.items():
            for i, row in enumerate(rows):
                met[i, values.get(row[field], [])] = True
        return met


# ------------------------------------------------------------------- scores


class _Dense:
    fields = ("dense",)

    def __init__(self, vectors: Sequence[Any], spec: CollectionSpec) -> None:
        self.queries = np.stack([rounded(vector, spec.storage) for vector in vectors])

    def __call__(self, rows: Sequence[StoredRow]) -> Scores:
        scores: Scores = np.stack([row["dense"] for row in rows]) @ self.queries.T
        return scores


class _Inner:
    """Inner products of sparse rows and queries; -inf for a row that has nothing of the query.

    queries: the weights of each, above 0, by whatever stands for a dimension.
    """

    def __init__(self, queries: Sequence[Mapping[Any, float]]) -> None:
        self.columns = {name: i for i, name in enumerate(dict.fromkeys(n for q in queries for n in q))}
        self.queries = np.zeros((len(self.columns), len(queries)), np.float32)
        for number, query in enumerate(queries):
            for name, weight in query.items():
                self.queries[self.columns[name], number] = weight

    def scores(self, rows: Sequence[Mapping[Any, float]]) -> Scores:
        known = [{c: w for n, w in row.items() if (c := self.columns.get(n)) is not None} for row in rows]
        bounds = np.cumsum([0, *map(len, known)])
        indices = np.fromiter((c for row in known for c in row), np.int64, bounds[-1])
        values = np.fromiter((w for row in known for w in row.values()), np.float32, bounds[-1])
        matrix = sparse.csr_array((values, indices, bounds), shape=(len(rows), len(self.columns)))
        scores: Scores = np.asarray(matrix @ self.queries, np.float32)
        scores[scores <= 0] = -np.inf
        return scores


class _Lexical:
    fields = ("lexical",)

    def __init__(self, vectors: Sequence[Any]) -> None:
        self.inner = _Inner([vector.to_dict() for vector in vectors])

    def __call__(self, rows: Sequence[StoredRow]) -> Scores:
        return self.inner.scores([row["lexical"].to_dict() for row in rows])


class _Bm25:
    """Robertson's BM25 with Lucene's idf, as in Milvus; its statistics are those of all rows."""

    fields = JOINED

    def __init__(self, store: Store, collection: str, texts: Sequence[Any]) -> None:
        queries = [terms(text) for text in texts]
        self.wanted = {term for query in queries for term in query}
        frequency: Counter[str] = Counter()
        rows = length = 0
        for row in store.scan(collection, None, self.fields):
            counted = terms(joined(row))
            frequency.update(self.wanted & counted.keys())
            rows, length = rows + 1, length + counted.total()
        idf = {t: float(np.log((rows - n + 0.5) / (n + 0.5) + 1.0)) for t, n in frequency.items()}
        self.mean = length / rows if length else 1.0
        parameters = schema.collection()["sparse"]["bm25"]["index"]["params"]
        self.k1, self.b = parameters["bm25_k1"], parameters["bm25_b"]
        self.inner = _Inner([{t: count * idf.get(t, 0.0) for t, count in q.items()} for q in queries])

    def __call__(self, rows: Sequence[StoredRow]) -> Scores:
        return self.inner.scores([self.weights(row) for row in rows])

    def weights(self, row: StoredRow) -> dict[str, float]:
        counted = terms(joined(row))
        norm = self.k1 * (1 - self.b + self.b * counted.total() / self.mean)
        return {t: counted[t] * (self.k1 + 1) / (counted[t] + norm) for t in self.wanted & counted.keys()}


def _scorer(
    store: Store, collection: str, spec: CollectionSpec, leg: Leg, vectors: Sequence[QueryVector]
) -> _Dense | _Lexical | _Bm25:
    match leg:
        case Leg.DENSE:
            return _Dense(vectors, spec)
        case Leg.LEXICAL:
            return _Lexical(vectors)
        case Leg.BM25:
            return _Bm25(store, collection, vectors)
