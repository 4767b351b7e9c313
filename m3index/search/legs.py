"""The search in one leg: query the store, collapse passages to documents, go deeper if there are too few."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

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


class Passing(Protocol):
    """Drops candidates of one query by their texts."""

    def most(self, depth: int) -> int:
        """The number of candidates of a leg to look at."""
        ...

    def keep(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Those that pass, in order."""
        ...

    def leave_rest(self) -> None:
        """Called by a leg that is short of documents and has more candidates than are looked at."""
        ...


def retrieve(
    store: Store,
    collection: str,
    leg: Leg,
    where: Filter | None,
    queries: Sequence[QueryVector],
    scope: LegScope,
    passing: Sequence[Passing | None] = (),
) -> list[Ranking]:
    """The ranking of each query in one leg. passing: for each query what its candidates must pass; None for
    nothing. Raises StoreError."""

    def find(numbers: Sequence[int], limit: int) -> list[list[Candidate]]:
        vectors = [queries[i] for i in numbers]
        return store.search(collection, leg, vectors, limit, where, scope.fields)

    return deepen(find, len(queries), scope, leg, passing)


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


def deepen(
    find: FindCandidates, queries: int, scope: LegScope, leg: Leg, passing: Sequence[Passing | None] = ()
) -> list[Ranking]:
    """Retrieves `depth` passages, and more while a query has fewer than `depth` documents.

    A query is complete when it has enough documents, when the leg is exhausted (fewer candidates than
    the limit, or as many as can be had or looked at), or, with a group field, when a deeper call finds no
    new group: a field with five languages never has a hundred.
    """
    passing = passing or (None,) * queries
    rankings = [Ranking(leg=leg, depth=scope.depth)] * queries
    limit = min(scope.depth + scope.margin, MAX_LIMIT)
    most = [MAX_LIMIT if p is None else min(MAX_LIMIT, p.most(limit)) for p in passing]
    short: Sequence[int] = range(queries)
    while short:
        still_short: list[int] = []
        for number, found in zip(short, find(short, limit), strict=True):
            before, words = len(rankings[number]), passing[number]
            candidates = found if words is None else words.keep(found[: most[number]])
            ranking = rankings[number] = collapse(candidates, scope, leg)
            if len(ranking) >= scope.depth or len(found) < limit:
                continue
            stuck = scope.group_field is not None and words is None and 0 < before == len(ranking)
            if limit < most[number] and not stuck:
                still_short.append(number)
            elif words is not None:
                words.leave_rest()
        short = still_short
        if short:
            fewest = max(1, min(len(rankings[number]) for number in short))
            deeper = max(2 * limit, math.ceil(1.2 * limit * scope.depth / fewest))
            limit = min(max(most[number] for number in short), deeper)
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
