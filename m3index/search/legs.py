"""One leg's part of a search: ask the store, collapse passages to documents, ask deeper where short."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from m3index.search.fusion import Metric, Ranking
from m3index.store.base import QueryVector, Store
from m3index.store.filter import Filter
from m3index.store.queries import MAX_LIMIT
from m3index.types import Candidate, FieldValue, Leg

Ask: TypeAlias = Callable[[Sequence[int], int], Sequence[Sequence[Candidate]]]
"""(numbers of the queries, limit) -> for each its candidates, best first."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What every leg of a search has in common.

    depth: how many documents (passages, groups) each leg is to yield. passages: keep passages apart.
    group_field: collapse by this field's value. exclude: keys of documents that are left out.
    margin: how many more passages the first call asks for, where some are known to fall away.
    """

    depth: int
    where: Filter | None = None
    passages: bool = False
    group_field: str | None = None
    exclude: frozenset[str] = frozenset()
    margin: int = 0


def retrieve(
    store: Store, collection: str, leg: Leg, queries: Sequence[QueryVector], scope: Scope
) -> list[Ranking]:
    """The ranking of each query in one leg."""

    def ask(numbers: Sequence[int], limit: int) -> list[list[Candidate]]:
        asked = [queries[i] for i in numbers]
        return store.search(collection, leg, asked, limit, scope.where, scope.group_field)

    return deepen(ask, len(queries), scope, metric_of(leg))


def retrieve_any(
    store: Store, collection: str, leg: Leg, vectors: Sequence[QueryVector], scope: Scope
) -> Ranking:
    """One ranking for several vectors: a passage counts by the vector that it is nearest to."""

    def ask(_: Sequence[int], limit: int) -> list[list[Candidate]]:
        answers = store.search(collection, leg, vectors, limit, scope.where, scope.group_field)
        best: dict[str, Candidate] = {}
        for candidate in (c for answer in answers for c in answer):
            known = best.get(candidate.passage_id)
            if known is None or candidate.score > known.score:
                best[candidate.passage_id] = candidate
        return [sorted(best.values(), key=lambda c: (-c.score, c.passage_id))[:limit]]

    return deepen(ask, 1, scope, metric_of(leg))[0]


def deepen(ask: Ask, queries: int, scope: Scope, metric: Metric) -> list[Ranking]:
    """Asks for `depth` passages, and for more while a query has fewer than `depth` documents.

    A query is done when it has enough, when the leg is exhausted (fewer candidates than asked for,
    or Milvus's limit reached), or, with a group field, when going deeper brought no new group: a
    field of five languages never has a hundred.
    """
    rankings = [Ranking(metric=metric)] * queries
    short: Sequence[int] = range(queries)
    limit = min(scope.depth + scope.margin, MAX_LIMIT)
    while short:
        still_short: list[int] = []
        for number, candidates in zip(short, ask(short, limit), strict=True):
            before = len(rankings[number])
            ranking = rankings[number] = collapse(candidates, scope, metric)
            exhausted = len(candidates) < limit or limit == MAX_LIMIT
            stuck = scope.group_field is not None and 0 < before == len(ranking)
            if len(ranking) < scope.depth and not exhausted and not stuck:
                still_short.append(number)
        short = still_short
        if short:
            fewest = max(1, min(len(rankings[number]) for number in short))
            limit = min(MAX_LIMIT, max(2 * limit, math.ceil(1.2 * limit * scope.depth / fewest)))
    return rankings


def collapse(candidates: Iterable[Candidate], scope: Scope, metric: Metric = "IP") -> Ranking:
    """The first `depth` ids, each with its best passage (MaxP); candidates come best first."""
    ids: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.key in scope.exclude:
            continue
        ids.setdefault(identity(candidate, scope), candidate)
        if len(ids) == scope.depth:
            break
    return Ranking(
        ids=tuple(ids),
        scores=tuple(c.score for c in ids.values()),
        passages=tuple(c.passage_id for c in ids.values()),
        metric=metric,
    )


def identity(candidate: Candidate, scope: Scope) -> str:
    """What a candidate counts as: its passage, its group, or its document.

    A document without a value in the group field stands for itself.
    """
    if scope.group_field is not None and candidate.group is not None:
        return group_id(candidate.group)
    if scope.passages and scope.group_field is None:
        return candidate.passage_id
    return candidate.key


def group_id(value: FieldValue) -> str:
    """JSON, which no document's key looks like: 32 hexadecimal digits are too many for a number."""
    return json.dumps(value, ensure_ascii=False, default=list)


def metric_of(leg: Leg) -> Metric:
    return "BM25" if leg is Leg.BM25 else "IP"
