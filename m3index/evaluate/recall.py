"""The recall of an index in service: what it finds of what an exact scan of the same rows finds."""

from __future__ import annotations

import hashlib
import heapq
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from m3index.errors import Exit, GateError, UsageError
from m3index.evaluate.exact import Ask, can_scan, scan
from m3index.evaluate.formats import read_queries
from m3index.evaluate.options import RecallOptions
from m3index.evaluate.statistics import bounded_mean
from m3index.index.collection import generation_number
from m3index.progress import Reporter, Silent
from m3index.search.assemble import fuse_legs
from m3index.search.fusion import Ranking
from m3index.search.legs import LegScope, retrieve
from m3index.search.options import SearchOptions
from m3index.search.plan import PlannedLeg, SearchTarget, encode, filter_of, plan_legs, stored_vector
from m3index.search.trust import trusted
from m3index.store.base import QueryVector
from m3index.store.filter import Compare, Filter, combine
from m3index.store.half_precision import ROUNDOFF
from m3index.types import JOINED, Leg, key_of_passage
from m3index.wording import many

Asked: TypeAlias = Literal["passages", "queries"]

TOLERANCE = 1e-4
"""The relative difference up to which scores are equal. Documents with equal scores stand for each other."""

TOGETHER = 16
"""Queries in one call of the store: a whole passage as a query takes long, and others wait meanwhile."""

SLACK = 16
"""How many more documents than the depth the exact scan keeps: the ones that tie with the last."""


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """The mean recall of one leg, or of the fusion of both, with its 95 % interval.

    leg: `dense`, `sparse` or `fused`. at: the number of first documents that are compared. filtered: whether
    the searches had a filter. asked: stored passages or the queries of a file. queries: their number, without
    those for which there is nothing to find.
    """

    leg: str
    at: int
    filtered: bool
    asked: Asked
    queries: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RecallReport:
    """The recall of an index; iterating yields its rows.

    indexes: the kind of index of each leg. min_recall: what each row must reach; None for no gate.
    """

    collection: str
    generation: int
    indexes: Mapping[str, str]
    rows: tuple[IndexRecall, ...]
    min_recall: float | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def __iter__(self) -> Iterator[IndexRecall]:
        return iter(self.rows)

    @property
    def failed(self) -> tuple[IndexRecall, ...]:
        """The rows whose mean is below `min_recall`."""
        least = self.min_recall
        return () if least is None else tuple(row for row in self.rows if row.mean < least)

    @property
    def exit(self) -> Exit:
        return Exit.GATE if self.failed else Exit.OK

    def raise_for_recall(self) -> None:
        """Raises GateError if a row is below `min_recall`."""
        if self.failed:
            raise GateError(f"The index of {self.collection!r} finds too little: {_said(self.failed)}.")

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "summary",
            "command": "verify",
            "collection": self.collection,
            "generation": self.generation,
            "indexes": dict(self.indexes),
            "recall": [asdict(row) for row in self.rows],
            "min_recall": self.min_recall,
            "seconds": self.seconds,
            "exit": int(self.exit),
        }


def _said(rows: Iterable[IndexRecall]) -> str:
    return ", ".join(
        f"{row.leg}{' filtered' if row.filtered else ''} {row.mean:.4f} of the first {row.at}" for row in rows
    )


@dataclass(frozen=True, slots=True)
class _Query:
    """A query by leg. own: the document that it is from, which does not count. condition: of its filter."""

    vectors: Mapping[str, QueryVector]
    asked: Asked
    own: str | None
    condition: Compare | None


@dataclass(frozen=True, slots=True)
class _Round:
    """The same queries once, with or without filters."""

    filtered: bool
    where: Filter | None
    conditions: tuple[Compare | None, ...]


def measure(
    target: SearchTarget, passages: int, options: RecallOptions, reporter: Reporter | None = None
) -> RecallReport:
    """Searches with `passages` sampled stored passages, and the queries of a file if one is named, once in
    the index and once by an exact scan.

    The filter is that of the options; without one, it is for each passage its own value of a declared field.
    Nothing is encoded for stored passages. Raises UsageError for an empty collection, FilterError,
    QueryError, StoreError.
    """
    started = time.monotonic()
    reporter = reporter or Silent()
    scope = SearchOptions(tenant=options.tenant, source=options.source)
    legs, notes = plan_legs([target], scope)
    reporter.stage(f"sampling {many(passages, 'passage')}")
    queries = _stored(target, legs, passages, options)
    if not queries:
        raise UsageError(f"{target} has no passages to measure with.")
    if options.queries is not None:
        queries = [*queries, *_of_file(options.queries, legs, queries)]
    run = _Comparison(target, legs, queries, options, scope, reporter)
    rows = [row for number in range(len(run.rounds)) for row in run.compared(number)]
    return RecallReport(
        collection=target.name or target.collection,
        generation=generation_number(target.name, target.collection) or 0,
        indexes=_indexes(target),
        rows=tuple(rows),
        min_recall=options.min_recall,
        notes=(*notes, *run.notes),
        seconds=round(time.monotonic() - started, 3),
    )


# ------------------------------------------------------------------ queries


def _stored(
    target: SearchTarget, legs: Sequence[PlannedLeg], count: int, options: RecallOptions
) -> list[_Query]:
    """Sampled passages in random order; the same ones each time, as long as they are stored."""
    store, collection, spec = target.store, target.collection, target.spec
    rows = store.scan(collection, legs[0].where, [])
    keys = heapq.nsmallest(count, (row["passage_id"] for row in rows), key=_digest)
    vectors = set(JOINED) if spec.sparse == "bm25" else {"lexical"} if spec.sparse == "lexical" else set()
    fields = [name for name, kind in spec.fields.items() if kind in ("str", "int", "bool")]
    stored = store.get(collection, keys, ["dense", *sorted(vectors), "ordinal", *fields])
    is_filtered = options.where is not None or options.filter is not None
    queries: list[_Query] = []
    for number, key in enumerate(k for k in keys if k in stored):
        row, condition = stored[key], None
        if not is_filtered:
            field = fields[number % len(fields)] if fields else "ordinal"
            field = "ordinal" if row[field] is None else field
            condition = Compare(field, "==", row[field])
        by_leg = {leg.name: stored_vector(row, leg.leg) for leg in legs}
        queries.append(_Query(by_leg, "passages", key_of_passage(key), condition))
    return queries


def _digest(passage_id: str) -> bytes:
    return hashlib.blake2b(passage_id.encode(), digest_size=8).digest()


def _of_file(path: str, legs: Sequence[PlannedLeg], stored: Sequence[_Query]) -> list[_Query]:
    """The queries of a file, each with the filter of a sampled passage."""
    texts = [query.text for query in read_queries(path)]
    vectors: dict[str, Sequence[QueryVector]] = {leg.name: texts for leg in legs if leg.leg is Leg.BM25}
    vectors |= encode(texts, [leg for leg in legs if leg.leg is not Leg.BM25])
    order = sorted(range(len(texts)), key=lambda i: _digest(texts[i]))
    return [
        _Query(
            {name: of_leg[i] for name, of_leg in vectors.items()},
            "queries",
            None,
            stored[number % len(stored)].condition,
        )
        for number, i in enumerate(order)
    ]


# -------------------------------------------------------------- comparison


class _Comparison:
    """The rankings of all queries, from the index and from the exact scan."""

    def __init__(
        self,
        target: SearchTarget,
        legs: Sequence[PlannedLeg],
        queries: Sequence[_Query],
        options: RecallOptions,
        scope: SearchOptions,
        reporter: Reporter,
    ) -> None:
        self.target, self.legs, self.queries, self.reporter = target, legs, queries, reporter
        self.search = scope
        self.k, self.depth = options.recall_k, scope.leg_depth
        self.notes: list[str] = []
        within = legs[0].where
        given = filter_of(target, SearchOptions(where=options.where, filter=options.filter))
        none = (None,) * len(queries)
        own = tuple(query.condition for query in queries)
        self.rounds = (
            _Round(False, within, none),
            _Round(True, combine(within, given), none if given is not None else own),
        )
        self.exact: dict[str, list[list[Ranking]]] = {}
        self.found = {leg.name: [self._found(leg, turn) for turn in self.rounds] for leg in legs}
        for leg in legs:
            if can_scan(target.spec, leg.leg):
                self.exact[leg.name] = self._scanned(leg)
            else:
                self.notes.append(
                    f"The {leg.name} leg is not measured: only the server has the words of its analyzer "
                    f"{target.spec.analyzer!r}. Its ranking counts as exact in the fusion."
                )

    def _found(self, leg: PlannedLeg, turn: _Round) -> list[Ranking]:
        """What the index finds. One document more than the depth, as its own does not count."""
        self.reporter.stage(f"searching the {leg.name} leg{' with filters' if turn.filtered else ''}")
        scope = LegScope(depth=self.depth + 1)
        rankings = [Ranking()] * len(self.queries)
        together: dict[Compare | None, list[int]] = {}
        for number, condition in enumerate(turn.conditions):
            together.setdefault(condition, []).append(number)
        for condition, numbers in together.items():
            where = combine(turn.where, condition)
            for start in range(0, len(numbers), TOGETHER):
                part = numbers[start : start + TOGETHER]
                vectors = [self.queries[i].vectors[leg.name] for i in part]
                answers = retrieve(self.target.store, self.target.collection, leg.leg, where, vectors, scope)
                for i, ranking in zip(part, answers, strict=True):
                    rankings[i] = _without(ranking, self.queries[i].own, self.depth)
        return rankings

    def _scanned(self, leg: PlannedLeg) -> list[list[Ranking]]:
        """What an exact scan finds in each round; rounds of the same rows in one scan."""
        self.reporter.stage(f"scanning all rows for the {leg.name} leg")
        target, kept = self.target, self.depth + SLACK
        scanned: list[list[Ranking]] = [[] for _ in self.rounds]
        for where in dict.fromkeys(turn.where for turn in self.rounds):
            turns = [i for i, turn in enumerate(self.rounds) if turn.where == where]
            asks = [
                Ask(query.vectors[leg.name], condition)
                for i in turns
                for query, condition in zip(self.queries, self.rounds[i].conditions, strict=True)
            ]
            rankings = scan(target.store, target.collection, target.spec, leg.leg, asks, kept + 1, where)
            for i in turns:
                part, rankings = rankings[: len(self.queries)], rankings[len(self.queries) :]
                scanned[i] = [
                    _without(ranking, query.own, kept)
                    for ranking, query in zip(part, self.queries, strict=True)
                ]
        return scanned

    def compared(self, number: int) -> list[IndexRecall]:
        """The recall of each leg at k and at the depth, and of the fusion at k."""
        rows: list[IndexRecall] = []
        for asked in dict.fromkeys(query.asked for query in self.queries):
            own = [i for i, query in enumerate(self.queries) if query.asked == asked]
            values: dict[tuple[str, int], list[float | None]] = {}
            for leg, exact in self.exact.items():
                for at in sorted({self.k, self.depth}):
                    values[leg, at] = [
                        recall_at(self.found[leg][number][i], exact[number][i], at, self._margin(leg))
                        for i in own
                    ]
            if len(self.legs) > 1 and self.exact:
                values["fused", self.k] = [self._fused(number, i) for i in own]
            for (leg, at), recalls in values.items():
                known = np.array([value for value in recalls if value is not None], np.float64)
                if len(known):
                    mean = bounded_mean(known)
                    turn = self.rounds[number]
                    rows.append(
                        IndexRecall(leg, at, turn.filtered, asked, len(known), mean.mean, mean.low, mean.high)
                    )
        return rows

    def _margin(self, leg: str) -> float:
        return TOLERANCE + (ROUNDOFF[self.target.spec.storage] if leg == "dense" else 0.0)

    def _fused(self, number: int, i: int) -> float | None:
        """The recall of the fusion of what the index finds, against the fusion of what the scan finds."""
        found = {leg: rankings[number][i] for leg, rankings in self.found.items()}
        exact = {
            leg: _cut(_with_scores_of(self.exact[leg][number][i], ranking, self._margin(leg)), self.depth)
            if leg in self.exact
            else ranking
            for leg, ranking in found.items()
        }
        weights = {leg.name: leg.weight for leg in self.legs}
        first, wanted = (
            {hit.fused.id for hit in fuse_legs(self._trusted(rankings, i), weights, self.search, self.k)}
            for rankings in (found, exact)
        )
        return len(first & wanted) / len(wanted) if wanted else None

    def _trusted(self, rankings: Mapping[str, Ranking], i: int) -> dict[str, Ranking]:
        """The rankings of a query as a search has them."""
        legs = {leg.name: leg for leg in self.legs}
        return {
            name: trusted(legs[name], [self.queries[i].vectors[name]], [ranking], self.search.method)[0]
            for name, ranking in rankings.items()
        }


def recall_at(found: Ranking, exact: Ranking, k: int, margin: float) -> float | None:
    """The share of the first k documents of the exact ranking among the first k found; None if there is
    nothing to find. A document whose exact score is that of the last one within the margin stands for it."""
    wanted = min(k, len(exact))
    if not wanted:
        return None
    last = exact.scores[wanted - 1]
    least = last - margin * max(1.0, abs(last))
    good = {id_ for id_, score in zip(exact.ids, exact.scores, strict=True) if score >= least}
    return min(1.0, len(good.intersection(found.ids[:k])) / wanted)


def _with_scores_of(exact: Ranking, found: Ranking, margin: float) -> Ranking:
    """The exact ranking with the scores of the index where these differ by rounding alone, so that documents
    with equal scores stand in the same order in both; where the index stops among them, those that it found
    come first."""
    theirs = dict(zip(found.ids, found.scores, strict=True))
    last = found.scores[-1] if len(found) else np.inf

    def place(id_: str, score: float, passage: str) -> tuple[float, bool, str, str]:
        known = theirs.get(id_, last)
        is_equal = abs(known - score) <= margin * max(1.0, abs(score))
        return -(known if is_equal else score), id_ not in theirs, passage, id_

    scored = sorted(map(place, exact.ids, exact.scores, exact.passages))
    return replace(
        exact,
        ids=tuple(id_ for *_, id_ in scored),
        scores=tuple(-score for score, *_ in scored),
        passages=tuple(passage for _, _, passage, _ in scored),
    )


def _without(ranking: Ranking, own: str | None, depth: int) -> Ranking:
    """The first `depth` documents except one."""
    if own not in ranking.ids:
        return _cut(ranking, depth)
    at = ranking.ids.index(own)
    rest = [i for i in range(len(ranking)) if i != at]
    others = replace(
        ranking,
        ids=[ranking.ids[i] for i in rest],
        scores=[ranking.scores[i] for i in rest],
        passages=[ranking.passages[i] for i in rest],
    )
    return _cut(others, depth)


def _cut(ranking: Ranking, depth: int) -> Ranking:
    """The first `depth` documents, as if the leg had been asked for so many."""
    return replace(
        ranking,
        ids=ranking.ids[:depth],
        scores=ranking.scores[:depth],
        passages=ranking.passages[:depth],
        depth=depth,
    )


def _indexes(target: SearchTarget) -> dict[str, str]:
    """The kind of index of each leg. Only those of a server follow the index class."""
    described, choice = target.store.describe(), target.spec.index
    dense = choice.dense_type if described["kind"] == "server" else str(described["dense_index"])
    if target.spec.sparse == "none":
        return {"dense": dense}
    return {"dense": dense, "sparse": str(choice.part("sparse").get("type", "SPARSE_INVERTED_INDEX"))}
