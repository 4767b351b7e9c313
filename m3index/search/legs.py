"""The search in one leg: query the store, collapse passages to documents, go deeper if there are too few."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from m3index.search.fusion import Ranking
from m3index.store.base import MAX_LIMIT, QueryVector, Store
from m3index.store.filter import Filter
from m3index.types import Candidate, FieldValue, Leg

FindCandidates: TypeAlias = Callable[[Sequence[int], int], Sequence[Sequence[Candidate]]]
"""(numbers of the queries, limit) -> the candidates of each query, best first."""


@dataclass(frozen=True, slots=True)
class LegScope:
    """What all legs of a search have in common.

    depth: number of documents (passages, groups) to retrieve from each leg. passages: do not collapse
    passages. group_field: collapse by the values of this field, one of `fields`. fields: those to read of all
    that is found. exclude: keys of documents to leave out. margin: extra passages for the first call, if some
    are known to be dropped.
    """

    depth: int
    passages: bool = False
    group_field: str | None = None
    fields: Sequence[str] = ()
    exclude: frozenset[str] = frozenset()
    margin: int = 0


def retrieve(
    store: Store,
    collection: str,
    leg: Leg,
    where: Filter | None,
    queries: Sequence[QueryVector],
    scope: LegScope,
) -> list[Ranking]:
    """The ranking of each query in one leg. Raises StoreError."""

    def find(numbers: Sequence[int], limit: int) -> list[list[Candidate]]:
        vectors = [queries[i] for i in numbers]
        return store.search(collection, leg, vectors, limit, where, scope.fields)

    return deepen(find, len(queries), scope, leg)


def retrieve_any(
    store: Store,
    collection: str,
    leg: Leg,
    where: Filter | None,
    vectors: Sequence[QueryVector],
    scope: LegScope,
) -> Ranking:
    """One ranking for several vectors: a passage counts by the vector nearest to it. Raises StoreError."""

    def find(_: Sequence[int], limit: int) -> list[list[Candidate]]:
        answers = store.search(collection, leg, vectors, limit, where, scope.fields)
        best: dict[str, Candidate] = {}
        for candidate in (c for answer in answers for c in answer):
            known = best.get(candidate.passage_id)
            if known is None or candidate.score > known.score:
                best[candidate.passage_id] = candidate
        return [sorted(best.values(), key=lambda c: (-c.score, c.passage_id))[:limit]]

    return deepen(find, 1, scope, leg)[0]


def deepen(find: FindCandidates, queries: int, scope: LegScope, leg: Leg) -> list[Ranking]:
    """Retrieves `depth` passages, and more while a query has fewer than `depth` documents.

    A query is complete when it has enough documents, when the leg is exhausted (fewer candidates than
    the limit, or Milvus's limit reached), or, with a group field, when a deeper call finds no new group:
    a field with five languages never has a hundred.
    """
    rankings = [Ranking(leg=leg, depth=scope.depth)] * queries
    short: Sequence[int] = range(queries)
    limit = min(scope.depth + scope.margin, MAX_LIMIT)
    while short:
        still_short: list[int] = []
        for number, candidates in zip(short, find(short, limit), strict=True):
            before = len(rankings[number])
            ranking = rankings[number] = collapse(candidates, scope, leg)
            exhausted = len(candidates) < limit or limit == MAX_LIMIT
            stuck = scope.group_field is not None and 0 < before == len(ranking)
            if len(ranking) < scope.depth and not exhausted and not stuck:
                still_short.append(number)
        short = still_short
        if short:
            fewest = max(1, min(len(rankings[number]) for number in short))
            limit = min(MAX_LIMIT, max(2 * limit, math.ceil(1.2 * limit * scope.depth / fewest)))
    return rankings


def collapse(candidates: Iterable[Candidate], scope: LegScope, leg: Leg = Leg.DENSE) -> Ranking:
    """The first `depth` ids, each with its best passage (MaxP). candidates: best first."""
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
        leg=leg,
        depth=scope.depth,
        values={id_: c.values for id_, c in ids.items() if c.values},
    )


def identity(candidate: Candidate, scope: LegScope) -> str:
    """The id that a candidate counts for: its passage, its group or its document.

    A document without a value in the group field counts for itself.
    """
    if scope.group_field is not None and (group := candidate.values[scope.group_field]) is not None:
        return group_id(group)
    if scope.passages and scope.group_field is None:
        return candidate.passage_id
    return candidate.key


def group_id(value: FieldValue) -> str:
    """The value as JSON, which no document key equals: 32 hexadecimal digits are too many for a number."""
    return json.dumps(value, ensure_ascii=False, default=list)
