"""Queries -> hits: the legs at the same time, their fusion, then the texts of the final hits only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field, replace
from itertools import islice

from m3index.errors import NotFoundError, QueryError, UsageError
from m3index.search.assemble import Found, fetch, find_matches, fuse_legs, make_hit, rerank
from m3index.search.explain import Explanation, Match, explain
from m3index.search.fusion import Ranking
from m3index.search.legs import Scope, retrieve, retrieve_any
from m3index.search.options import SearchOptions
from m3index.search.plan import PlannedLeg, Target, encode, plan_legs, stored_vector
from m3index.search.server_fusion import fuse_on_server, why_not
from m3index.search.threads import Clock, at_once, start
from m3index.store.base import QueryVector, StoredRow
from m3index.types import DEFAULT_SOURCE, Hit, Leg, Query, document_key, join_title, passage_key

__all__ = ["SearchResult", "Searcher", "Target"]

DEFAULTS = SearchOptions()
BATCH = 64
LIKE_PASSAGES = 64


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one query.

    legs: each leg's ranking, held, so that other weights can be tried without asking again.
    weights: of these legs. timings: seconds by step, `total` among them; for queries answered
    together, of all of them. notes: what a person should know about this answer. explanations: one
    for each hit where asked for.
    """

    query: Query
    hits: tuple[Hit, ...] = ()
    legs: Mapping[str, Ranking] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    explanations: tuple[Explanation, ...] = ()


@dataclass(frozen=True, slots=True)
class _Retrieved:
    """What the legs gave, by leg: a ranking for each query, and the vectors that they were asked with."""

    rankings: Mapping[str, Sequence[Ranking]]
    vectors: Mapping[str, Sequence[QueryVector]] = field(default_factory=dict)

    def by_query(self, queries: int) -> list[dict[str, Ranking]]:
        return [{name: found[i] for name, found in self.rankings.items()} for i in range(queries)]


class Searcher:
    """Searches one collection, or several whose legs are fused together. It holds no connection of its
    own, costs nothing to make, and may be used from several threads."""

    def __init__(self, *targets: Target) -> None:
        if not targets:
            raise UsageError("There is no collection to search.")
        names = [target.name for target in targets]
        if len(targets) > 1 and (len(set(names)) < len(names) or not all(names)):
            raise UsageError("Collections that are searched together need a name each, and no two the same.")
        self._targets = targets

    # -- one query

    def search(self, text: str, options: SearchOptions = DEFAULTS) -> SearchResult:
        """The best hits for a text. Raises QueryError for one that cannot be asked."""
        problem = _problem(text)
        if problem is not None:
            raise QueryError(problem)
        return self._answer([Query("", text)], options)[0]

    def like(
        self, doc_id: str, source: str = DEFAULT_SOURCE, options: SearchOptions = DEFAULTS
    ) -> SearchResult:
        """The hits nearest to a document of the collection, itself left out.

        Asks with the stored vectors of its passages (BM25: with their texts); a hit counts by the
        passage that it is nearest to. Nothing is encoded. NotFoundError where there is no such document.
        """
        if len(self._targets) > 1:
            raise UsageError("The documents that are like one are searched in one collection only.")
        if options.explain:
            raise UsageError("There is no explanation for documents that are like one; leave it out.")
        clock = Clock()
        plan, notes = plan_legs(self._targets, options)
        if options.fusion == "server":
            notes = (*notes, "Fused by m3index, not by Milvus: it compares one vector, not a document's.")
        key = document_key(source, doc_id)
        with clock("fetch"):
            rows, more_notes = _stored_passages(self._targets[0], key, doc_id, source)
        scope = replace(_scope(options), exclude=frozenset([key]), margin=len(rows))

        def ask(leg: PlannedLeg) -> list[Ranking]:
            vectors = [stored_vector(row, leg.leg) for row in rows]
            return [retrieve_any(leg.target.store, leg.target.collection, leg.leg, vectors, scope)]

        answers = at_once({leg.name: _timed(clock, ask, leg) for leg in plan})
        retrieved = _Retrieved({name: future.result() for name, future in answers.items()})
        query = Query("", join_title(str(rows[0]["title"]), str(rows[0]["text"])))
        found = _fuse(retrieved, 1, plan, options, clock)
        return self._finish([query], plan, retrieved, found, options, clock, (*notes, *more_notes))[0]

    # -- many queries

    def run(
        self, queries: Iterable[Query], options: SearchOptions = DEFAULTS, *, batch: int = BATCH
    ) -> Iterator[SearchResult]:
        """The answers in the order of the queries, `batch` of them in each call of encoder and store.

        A query that cannot be asked has no hits and a note that says why; the others are answered.
        """
        waiting = iter(queries)
        while part := list(islice(waiting, batch)):
            yield from self._run_batch(part, options)

    def _run_batch(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        problems = {i: p for i, query in enumerate(queries) if (p := _problem(query.text)) is not None}
        askable = [query for i, query in enumerate(queries) if i not in problems]
        try:
            answers = iter(self._answer(askable, options) if askable else [])
        except QueryError as error:
            if len(askable) == 1 == len(queries):
                return [SearchResult(queries[0], notes=(str(error),))]
            return [result for query in queries for result in self._run_batch([query], options)]
        return [
            SearchResult(query, notes=(problems[i],)) if i in problems else next(answers)
            for i, query in enumerate(queries)
        ]

    # -- the steps

    def _answer(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        clock = Clock()
        plan, notes = plan_legs(self._targets, options)
        texts = [query.text for query in queries]
        if options.fusion == "server":
            reason = why_not(plan, options)
            if reason is None:
                retrieved, found = _retrieve_fused(texts, plan, options, clock)
                return self._finish(
                    queries, plan, retrieved, found, options, clock, (*notes, "Fused by Milvus.")
                )
            notes = (*notes, f"Fused by m3index, not by Milvus: {reason}.")
        retrieved = _retrieve(texts, plan, _scope(options), clock)
        found = _fuse(retrieved, len(queries), plan, options, clock)
        return self._finish(queries, plan, retrieved, found, options, clock, notes)

    def _finish(
        self,
        queries: Sequence[Query],
        plan: Sequence[PlannedLeg],
        retrieved: _Retrieved,
        found: Sequence[Sequence[Found]],
        options: SearchOptions,
        clock: Clock,
        notes: tuple[str, ...],
    ) -> list[SearchResult]:
        """What was found for each query -> its result: fetch, rerank, explain."""
        weights = {leg.name: leg.weight for leg in plan}
        legs = retrieved.by_query(len(queries))
        with clock("fetch"):
            rows = fetch([f for part in found for f in part], self._targets, plan, options)
        results: list[SearchResult] = []
        for i, query in enumerate(queries):
            hits = [
                (f, make_hit(f, row, legs[i], options))
                for f in found[i]
                if (row := rows.get((f.leg, f.passage_id))) is not None
            ]
            gone = len(found[i]) - len(hits)
            if options.rerank is not None and hits:
                with clock("rerank"):
                    hits = rerank(query.text, hits, options.rerank)
            hits = hits[: options.k]
            explanations: list[Explanation] = []
            if options.explain:
                with clock("explain"):
                    explanations = _explain(i, [f for f, _ in hits], legs[i], plan, retrieved, options)
            results.append(
                SearchResult(
                    query=query,
                    hits=tuple(replace(hit, rank=rank) for rank, (_, hit) in enumerate(hits, 1)),
                    legs=legs[i],
                    weights=weights,
                    notes=(*notes, *_notes(legs[i], gone)),
                    explanations=tuple(explanations),
                )
            )
        timings = clock.read()
        return [replace(result, timings=timings) for result in results]


def _scope(options: SearchOptions) -> Scope:
    return Scope(
        depth=options.leg_depth,
        where=options.where,
        passages=options.passages,
        group_field=options.group_by,
    )


def _retrieve(texts: Sequence[str], plan: Sequence[PlannedLeg], scope: Scope, clock: Clock) -> _Retrieved:
    """Every leg in a thread; BM25, which needs no vectors, is asked while the encoder works."""
    early = [leg for leg in plan if leg.leg is Leg.BM25]
    late = [leg for leg in plan if leg.leg is not Leg.BM25]
    vectors: dict[str, Sequence[QueryVector]] = {leg.name: texts for leg in early}

    def ask(leg: PlannedLeg) -> list[Ranking]:
        return retrieve(leg.target.store, leg.target.collection, leg.leg, vectors[leg.name], scope)

    if late:
        found = {leg.name: start(_timed(clock, ask, leg)) for leg in early}
        try:
            vectors |= _encode(texts, late, clock)
            found |= at_once({leg.name: _timed(clock, ask, leg) for leg in late})
        finally:
            wait(found.values())
    else:
        found = at_once({leg.name: _timed(clock, ask, leg) for leg in early})
    return _Retrieved({leg.name: found[leg.name].result() for leg in plan}, vectors)


def _encode(
    texts: Sequence[str], legs: Sequence[PlannedLeg], clock: Clock
) -> Mapping[str, Sequence[QueryVector]]:
    with clock("load"):  # nothing but for the first search of a process
        for leg in legs:
            leg.target.encoder().prepare()
    with clock("encode"):
        return encode(texts, legs)


def _retrieve_fused(
    texts: Sequence[str], plan: Sequence[PlannedLeg], options: SearchOptions, clock: Clock
) -> tuple[_Retrieved, list[list[Found]]]:
    """Both legs in one call, fused by Milvus; the legs themselves stay there."""
    vectors: dict[str, Sequence[QueryVector]] = {leg.name: texts for leg in plan if leg.leg is Leg.BM25}
    vectors |= _encode(texts, [leg for leg in plan if leg.leg is not Leg.BM25], clock)
    with clock("server"):
        return _Retrieved({}, vectors), fuse_on_server(vectors, plan, options, _wanted(options))


def _fuse(
    retrieved: _Retrieved, queries: int, plan: Sequence[PlannedLeg], options: SearchOptions, clock: Clock
) -> list[list[Found]]:
    weights = {leg.name: leg.weight for leg in plan}
    with clock("fuse"):
        return [
            fuse_legs(rankings, weights, options, _wanted(options))
            for rankings in retrieved.by_query(queries)
        ]


def _wanted(options: SearchOptions) -> int:
    """How many hits go into the last steps."""
    return options.k if options.rerank is None else options.rerank_count


def _timed(
    clock: Clock, ask: Callable[[PlannedLeg], list[Ranking]], leg: PlannedLeg
) -> Callable[[], list[Ranking]]:
    def job() -> list[Ranking]:
        with clock(leg.name):
            return ask(leg)

    return job


def _explain(
    number: int,
    found: Sequence[Found],
    rankings: Mapping[str, Ranking],
    plan: Sequence[PlannedLeg],
    retrieved: _Retrieved,
    options: SearchOptions,
) -> list[Explanation]:
    matches: list[list[Match]] = [[] for _ in found]
    for leg in plan:
        if leg.leg is not Leg.DENSE:
            vector = retrieved.vectors[leg.name][number]
            for known, new in zip(matches, find_matches(leg, vector, found, rankings[leg.name]), strict=True):
                known += new
    weights = {leg.name: leg.weight for leg in plan}
    fused = [f.fused for f in found]
    return explain(fused, rankings, weights, matches, method=options.method, k=options.rrf_k)


def _stored_passages(
    target: Target, key: str, doc_id: str, source: str
) -> tuple[list[StoredRow], tuple[str, ...]]:
    """The rows of a document with their vectors; of a long one, some spread evenly over it."""
    fields = ["title", "text", "passages", "dense"]
    if target.sparse == "lexical":
        fields.append("lexical")
    first = target.store.get(target.collection, [passage_key(key, 0)], fields)
    if not first:
        raise NotFoundError(f"There is no document {doc_id!r} of source {source!r} in this collection.")
    count = int(first[passage_key(key, 0)]["passages"])
    step = max(1.0, count / LIKE_PASSAGES)
    keys = [passage_key(key, int(i * step)) for i in range(min(count, LIKE_PASSAGES))]
    rows = first | target.store.get(target.collection, keys[1:], fields)
    notes = [f"The document has {count} passages; {len(keys)} of them were compared."] * (count > len(keys))
    return [rows[key] for key in keys if key in rows], tuple(notes)


def _problem(text: str) -> str | None:
    """Why a text cannot be a query, or None."""
    if not text.strip():
        return "The query is empty; give at least one word."
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return (
            "The query is not valid Unicode text: it has bytes that are not UTF-8, or half a surrogate pair."
        )
    return None


def _notes(rankings: Mapping[str, Ranking], gone: int) -> list[str]:
    """What a person should know about an answer."""
    notes: list[str] = []
    silent = [name for name, ranking in rankings.items() if not len(ranking)]
    if silent and len(silent) < len(rankings):
        speaking = " and ".join(name for name in rankings if name not in silent)
        notes.append(f"Nothing was found by {' and '.join(silent)}; these hits are from {speaking} alone.")
    if gone:
        notes.append(f"{gone} of the hits had left the collection before they could be read.")
    return notes
