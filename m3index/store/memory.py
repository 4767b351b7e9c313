"""The exact store in memory: the reference for the other stores, and the store for fast tests."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from m3index import schema
from m3index.errors import CollectionNotFoundError, StoreError, UsageError
from m3index.schema import CollectionSpec
from m3index.store.analyzer import STEMS, terms
from m3index.store.base import LEASE, QueryVector, StoredRow
from m3index.store.fence import Check, Fences
from m3index.store.filter import Filter, matches, render
from m3index.store.half_precision import rounded
from m3index.store.queries import check
from m3index.store.rows import BATCH_ROWS, NOT_STORED, changed, checked, reason, refusal, refused
from m3index.types import AnyRow, Candidate, FloatArray, Leg, Row, RowUpdate, SparseVector, join_title

Fail = Callable[[str], None]
"""Called with `before upsert`, `after upsert`, `before delete` ...; what it raises reaches the caller."""

BM25_LIMIT = 2**20


@dataclass(slots=True)
class _Collection:
    spec: CollectionSpec
    properties: dict[str, str]
    rows: dict[str, Row] = field(default_factory=dict)
    terms: dict[str, Counter[str]] = field(default_factory=dict)


class MemoryStore:
    """Collections in dictionaries. Dense and lexical use the exact inner product, BM25 scores as Milvus does.

    fail: a hook around every write, to see what a crash leaves behind. batch: how many rows (or keys)
    are written between two calls of the hook.
    """

    def __init__(self, fail: Fail | None = None, *, batch: int = BATCH_ROWS) -> None:
        self.fail, self.batch = fail, batch
        self.warnings: list[str] = []
        self._collections: dict[str, _Collection] = {}
        self._aliases: dict[str, str] = {}
        self._lock = threading.RLock()
        self._fences = Fences()

    @property
    def uri(self) -> str:
        return "memory:"

    def default_analyzer(self) -> str:
        return STEMS

    # -- collections and aliases

    def collections(self) -> list[str]:
        return sorted(self._collections)

    def create(self, name: str, spec: CollectionSpec, properties: Mapping[str, str]) -> None:
        _check_name(name)
        if name in self._collections or name in self._aliases:
            raise StoreError(f"The collection {name!r} already exists.")
        if spec.sparse == "bm25":
            spec = replace(spec, analyzer=spec.analyzer or STEMS)
            properties = {**properties, "analyzer": str(spec.analyzer)}
        self._begin("create", name)
        self._collections[name] = _Collection(replace(spec, fields=dict(spec.fields)), dict(properties))
        self._hook("after create")

    def drop(self, name: str) -> None:
        if name not in self._collections:
            return
        if aliases := [alias for alias, target in self._aliases.items() if target == name]:
            raise StoreError(
                f"The collection {name!r} is not dropped: it is in use by the alias {', '.join(aliases)}."
            )
        self._begin("drop", name)
        del self._collections[name]
        self._hook("after drop")

    def spec(self, name: str) -> CollectionSpec:
        return self._collection(name).spec

    def properties(self, name: str) -> dict[str, str]:
        return dict(self._collection(name).properties)

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        collection = self._collection(name)
        if set(properties) == {LEASE}:
            self._hook("before set_properties")
        else:
            self._begin("set_properties", name)
        collection.properties.update(properties)
        self._hook("after set_properties")

    def resolve(self, alias: str) -> str | None:
        _check_name(alias)
        if alias in self._collections:
            raise UsageError(
                f"{alias!r} is a plain collection at {self.uri}, and m3index needs that name for an alias. "
                "Rename or drop the collection, or choose another name with -c."
            )
        return self._aliases.get(alias)

    def point(self, alias: str, name: str) -> None:
        _check_name(alias)
        if alias in self._collections:
            raise StoreError(f"{alias!r} is a collection; it cannot be an alias.")
        if name not in self._collections:
            raise CollectionNotFoundError(f"There is no collection {name!r} at {self.uri}.")
        self._begin("point", alias)
        self._aliases[alias] = name
        self._hook("after point")

    def drop_alias(self, alias: str) -> None:
        self._begin("drop_alias", alias)
        self._aliases.pop(alias, None)
        self._hook("after drop_alias")

    def fence(self, alias: str, check: Check | None) -> None:
        self._fences.set(alias, check)

    def limit(self, seconds: float) -> AbstractContextManager[None]:  # noqa: ARG002  (it is never silent)
        return nullcontext()

    # -- rows

    def upsert(self, name: str, rows: Sequence[Row]) -> None:
        self._write("upsert", name, rows, lambda row: row)

    def update(self, name: str, updates: Sequence[RowUpdate]) -> None:
        stored = self._collection(name).rows

        def after(update: RowUpdate) -> Row | None:
            row = stored.get(update.passage_id)
            return None if row is None else changed(row, update)

        self._write("update", name, updates, after)

    def _write(
        self, what: str, name: str, rows: Sequence[AnyRow], after: Callable[[AnyRow], Row | None]
    ) -> None:
        """after: the whole row to keep; None if there is none to update."""
        collection = self._collection(name)
        good, reasons = checked(rows, collection.spec, bm25_limit=BM25_LIMIT)
        for start in range(0, len(good), self.batch):
            self._begin(what, name)
            with self._lock:
                for wire in good[start : start + self.batch]:
                    row = after(wire.row)
                    if row is None:
                        reasons[wire.row.passage_id] = reason(wire.row, NOT_STORED)
                        continue
                    collection.rows[row.passage_id] = _kept(row, collection.spec)
                    collection.terms.pop(row.passage_id, None)
            self._hook(f"after {what}")
        if reasons:
            raise refused(reasons)

    def refusal(self, name: str, row: Row | RowUpdate) -> str:
        return refusal(row, self._collection(name).spec, bm25_limit=BM25_LIMIT)

    def delete(self, name: str, passage_ids: Sequence[str]) -> None:
        collection = self._collection(name)
        for start in range(0, len(passage_ids), self.batch):
            self._begin("delete", name)
            with self._lock:
                for key in passage_ids[start : start + self.batch]:
                    collection.rows.pop(key, None)
                    collection.terms.pop(key, None)
            self._hook("after delete")

    def get(self, name: str, passage_ids: Sequence[str], fields: Sequence[str]) -> dict[str, StoredRow]:
        rows = self._collection(name).rows
        with self._lock:
            return {key: _stored(rows[key], fields) for key in dict.fromkeys(passage_ids) if key in rows}

    def scan(self, name: str, where: Filter | None, fields: Sequence[str]) -> Iterator[StoredRow]:
        for row in self._matching(self._collection(name), where):
            yield _stored(row, fields)

    def count(self, name: str, where: Filter | None = None) -> int:
        return len(self._matching(self._collection(name), where))

    def flush(self, name: str) -> None:
        self._collection(name)

    # -- search

    def search(
        self,
        name: str,
        leg: Leg,
        queries: Sequence[QueryVector],
        limit: int,
        where: Filter | None = None,
        fields: Sequence[str] = (),
    ) -> list[list[Candidate]]:
        collection = self._collection(name)
        searchable = check(collection.spec, leg, queries, limit)
        rows = self._matching(collection, where)
        results: list[list[Candidate]] = [[] for _ in queries]
        if not searchable or not rows:
            return results
        scored = self._scores(collection, leg, [queries[i] for i in searchable], rows)
        for i, scores in zip(searchable, scored, strict=True):
            hits = [
                (-float(s), row.passage_id, row)
                for s, row in zip(scores, rows, strict=True)
                if not math.isnan(s)
            ]
            results[i] = [
                Candidate(key, -score, _values(row, fields))
                for score, key, row in sorted(hits, key=lambda hit: hit[:2])[:limit]
            ]
        return results

    # -- the connection

    def describe(self) -> Mapping[str, Any]:
        return {
            "kind": "memory",
            "version": "",
            "uri": self.uri,
            "db": "default",
            "dense_index": "exact",
            "storages": list(schema.STORAGES),
            "analyzers": [STEMS],
            "default_analyzer": STEMS,
            "warnings": [],
        }

    def close(self) -> None:
        """There is nothing to release."""

    # -- pieces

    def _begin(self, what: str, name: str) -> None:
        self._hook(f"before {what}")
        self._fences.check(name)

    def _hook(self, moment: str) -> None:
        if self.fail is not None:
            self.fail(moment)

    def _collection(self, name: str) -> _Collection:
        try:
            return self._collections[self._aliases.get(name, name)]
        except KeyError:
            raise CollectionNotFoundError(f"There is no collection {name!r} at {self.uri}.") from None

    def _matching(self, collection: _Collection, where: Filter | None) -> list[Row]:
        with self._lock:
            rows = list(collection.rows.values())
        if where is None:
            return rows
        render(where)
        return [row for row in rows if matches(where, _filterable(row))]

    def _scores(
        self, collection: _Collection, leg: Leg, queries: Sequence[Any], rows: Sequence[Row]
    ) -> Iterator[FloatArray]:
        """For each query, the score of each row; NaN if the leg does not find the row."""
        match leg:
            case Leg.DENSE:
                matrix = np.stack([row.dense for row in rows])
                for query in queries:
                    yield matrix @ rounded(query, collection.spec.storage)
            case Leg.LEXICAL:
                weights = [row.sparse.to_dict() if row.sparse is not None else {} for row in rows]
                for query in queries:
                    yield _inner(query, weights)
            case Leg.BM25:
                with self._lock:
                    for key in collection.rows.keys() - collection.terms.keys():
                        row = collection.rows[key]
                        collection.terms[key] = terms(join_title(row.title, row.breadcrumb, row.text))
                    counted = dict(collection.terms)
                for query in queries:
                    yield _bm25(terms(query), counted, rows)


def _inner(query: SparseVector, weights: Sequence[Mapping[int, float]]) -> FloatArray:
    query_weights = query.to_dict()
    scores = [
        math.fsum(w * row[i] for i, w in query_weights.items() if i in row)
        if query_weights.keys() & row.keys()
        else math.nan
        for row in weights
    ]
    return np.array(scores, np.float32)


def _bm25(query: Counter[str], counted: Mapping[str, Counter[str]], rows: Sequence[Row]) -> FloatArray:
    """Robertson's BM25 with Lucene's idf, as in Milvus. k1 and b come from the collection definition."""
    params = schema.collection()["sparse"]["bm25"]["index"]["params"]
    k1, b = params["bm25_k1"], params["bm25_b"]
    frequency = {t: sum(t in c for c in counted.values()) for t in query}
    mean = sum(c.total() for c in counted.values()) / len(counted) or 1.0
    scores = np.full(len(rows), math.nan, np.float32)
    for n, row in enumerate(rows):
        row_terms = counted[row.passage_id]
        score = 0.0
        for term, count in query.items():
            if times := row_terms.get(term, 0):
                idf = math.log((len(counted) - frequency[term] + 0.5) / (frequency[term] + 0.5) + 1.0)
                length = row_terms.total()
                score += count * idf * times * (k1 + 1) / (times + k1 * (1 - b + b * length / mean))
        if score > 0.0:
            scores[n] = score
    return scores


def _kept(row: Row, spec: CollectionSpec) -> Row:
    """A copy that shares nothing with the caller's row, as a server would return it."""
    sparse = row.sparse
    return replace(
        row,
        metadata=json.loads(schema.metadata_json(row.metadata)),
        fields={
            name: schema.field_value(name, kind, row.fields.get(name)) for name, kind in spec.fields.items()
        },
        dense=rounded(np.array(row.dense, np.float32), spec.storage),
        sparse=None
        if sparse is None
        else SparseVector(np.array(sparse.indices, np.int32), np.array(sparse.values, np.float32)),
    )


def _filterable(row: Row) -> dict[str, Any]:
    return {
        "passage_id": row.passage_id,
        "doc_id": row.doc_id,
        "ordinal": row.ordinal,
        "source": row.source,
        "doc_hash": row.doc_hash,
        "passages": row.passages,
        "title": row.title,
        "breadcrumb": row.breadcrumb,
        "anchor": row.anchor,
        "text": row.text,
        **row.fields,
    }


def _stored(row: Row, fields: Sequence[str]) -> dict[str, Any]:
    stored: dict[str, Any] = {"passage_id": row.passage_id}
    for name in fields:
        if name in row.fields:
            value: Any = row.fields[name]
        elif name in ("lexical", "sparse"):
            value = row.sparse
        elif name == "metadata":
            value = json.loads(json.dumps(row.metadata))
        elif hasattr(row, name):
            value = getattr(row, name)
        else:
            raise StoreError(f"There is no field {name!r}.")
        stored[name] = list(value) if isinstance(value, tuple) else value
    return stored


def _check_name(name: str) -> None:
    if not (name.isascii() and name.isidentifier() and len(name) <= 255):
        raise UsageError(f"A collection's name must consist of letters, digits and _: {name!r} does not.")


def _values(row: Row, fields: Sequence[str]) -> dict[str, Any]:
    stored = _stored(row, fields) if fields else {}
    return {name: stored[name] for name in fields}
