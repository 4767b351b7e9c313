"""Searches collections: all legs in parallel, their fusion, then the texts of the final hits only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeAlias

from m3index.errors import NotFoundError, QueryError, UsageError
from m3index.index.tenant import tenant_of
from m3index.search import facets
from m3index.search.arrange import Arrangement, factors_of_fusion
from m3index.search.asked import AskedQuery
from m3index.search.assemble import FusedHit, RowName, fetch, find_matches, fuse_legs, make_hit, rerank
from m3index.search.evidence import LEAST_HITS, Chance
from m3index.search.explain import explain
from m3index.search.fusion import Ranking, chances_of
from m3index.search.legs import LegScope, retrieve, retrieve_any
from m3index.search.options import SearchOptions
from m3index.search.plan import PlannedLeg, SearchTarget, encode, expand, plan_legs, stored_vector
from m3index.search.rerank import Reranker, load_reranker
from m3index.search.result import BoostFactor, Explanation, Facet, Match, SearchResult
from m3index.search.server_fusion import fuse_on_server, obstacle
from m3index.search.synonyms import Expansion
from m3index.search.threads import Clock, run_together, start
from m3index.search.trust import trusted
from m3index.search.words import parse
from m3index.store.base import QueryVector, StoredRow
from m3index.types import JOINED, Leg, Query, document_key, joined, passage_key
from m3index.wording import many

__all__ = ["Rerankers", "SearchTarget", "Searcher"]

Rerankers: TypeAlias = Callable[[str, Mapping[str, float] | None], Reranker]
"""Returns a reranker by its name and, for `m3`, its weights. Raises UsageError for a name it rejects."""

DEFAULTS = SearchOptions()
BATCH = 64
LIKE_PASSAGES = 64


@dataclass(frozen=True, slots=True)
class _Retrieved:
    """The results by leg: a ranking for each query, and the vectors searched with. expansions: of sparse
    legs, the texts with their synonyms."""

    rankings: Mapping[str, Sequence[Ranking]]
    vectors: Mapping[str, Sequence[QueryVector]] = field(default_factory=dict)
    expansions: Mapping[str, Sequence[Expansion]] = field(default_factory=dict)

    def by_query(self, queries: int) -> list[dict[str, Ranking]]:
        return [{leg: rankings[i] for leg, rankings in self.rankings.items()} for i in range(queries)]


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps after the fusion that a search asks for."""

    reranker: Reranker | None
    arrangement: Arrangement | None


class Searcher:
    """Searches one collection, or several with their legs fused together. It holds no connection, is cheap
    to create, and can be used from several threads."""

    def __init__(self, *targets: SearchTarget, rerankers: Rerankers | None = None) -> None:
        """rerankers: returns the reranker that a search names; by default the encoder's heads and any
        cross-encoder. Raises UsageError without a target, or if several lack distinct names."""
        if not targets:
            raise UsageError("There is no collection to search.")
        names = [target.name for target in targets]
        if len(targets) > 1 and (len(set(names)) < len(names) or not all(names)):
            raise UsageError("Each collection needs a name of its own when several are searched together.")
        self._targets = targets
        self._rerankers = rerankers or partial(load_reranker, targets[0].encoder)

    # -- one query

    def search(self, text: str, options: SearchOptions = DEFAULTS) -> SearchResult:
        """The best hits for a text. Raises QueryError for an invalid text, FilterError, UsageError and
        StoreError."""
        problem = _problem(text, options)
        if problem is not None:
            raise QueryError(problem)
        return self._answer([Query("", text)], options)[0]

    def similar(self, doc_id: str, options: SearchOptions = DEFAULTS) -> SearchResult:
        """The hits nearest to a stored document, without the document itself.

        Searches with the stored vectors of its passages (BM25: with their texts); a hit counts by the
        passage nearest to it. Nothing is encoded. The document is that of `options.source` (by default
        `default`) and `options.tenant`. Raises NotFoundError if there is none, and the errors of `search`.
        """
        if len(self._targets) > 1:
            raise UsageError("Similar documents can be searched in one collection only.")
        if options.explain:
            raise UsageError("Similar documents have no explanation. Leave out explain.")
        clock = Clock()
        plan, notes = plan_legs(self._targets, options)
        steps = self._steps(options)
        if options.fusion == "server":
            notes = (*notes, "Fused by m3index: Milvus compares one vector, not those of a document.")
        source = options.document_source
        key = document_key(source, doc_id)
        with clock("fetch"):
            rows, more_notes = _stored_passages(self._targets[0], key, doc_id, source, options.tenant_name)
        scope = replace(_scope(options), exclude=frozenset([key]), margin=len(rows))

        def search_leg(leg: PlannedLeg) -> list[Ranking]:
            vectors = [stored_vector(row, leg.leg) for row in rows]
            target = leg.target
            found = retrieve_any(target.store, target.collection, leg.leg, leg.where, vectors, scope)
            return [replace(found, trust=target.dense_trust if leg.leg is Leg.DENSE else 1.0)]

        futures = run_together({leg.name: _timed(clock, search_leg, leg) for leg in plan})
        retrieved = _Retrieved({name: future.result() for name, future in futures.items()})
        text = joined(rows[0])
        asked = AskedQuery(Query("", text), parse(text, "plain"))
        fused = _fuse(retrieved, 1, plan, options, clock)
        notes = (*notes, *more_notes)
        return self._finish([asked], plan, retrieved, fused, options, steps, clock, notes)[0]

    # -- many queries

    def run(
        self, queries: Iterable[Query], options: SearchOptions = DEFAULTS, *, batch: int = BATCH
    ) -> Iterator[SearchResult]:
        """The results in the order of the queries, with `batch` queries per call of encoder and store.

        Queries are plain text unless the options name a syntax. An invalid query yields no hits and a note
        with the reason. Raises the other errors of `search`.
        """
        options = options.for_many
        remaining = iter(queries)
        while part := list(islice(remaining, batch)):
            yield from self._run_batch(part, options)

    def _run_batch(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        problems = {
            i: p for i, query in enumerate(queries) if (p := _problem(query.text, options)) is not None
        }
        valid = [query for i, query in enumerate(queries) if i not in problems]
        try:
            answers = iter(self._answer(valid, options) if valid else [])
        except QueryError as error:
            if len(valid) == 1 == len(queries):
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
        steps = self._steps(options)
        asked = [AskedQuery.of(query, plan, options) for query in queries]
        if options.fusion == "server":
            has_conditions = any(query.words.has_conditions for query in asked)
            reason = obstacle(plan, options, has_conditions=has_conditions)
            if reason is None:
                retrieved, fused = _retrieve_fused(asked, plan, options, clock)
                notes = (*notes, "Fused by Milvus.")
                return self._finish(asked, plan, retrieved, fused, options, steps, clock, notes)
            notes = (*notes, f"Fused by m3index: {reason}.")
        retrieved = _retrieve(asked, plan, options, clock)
        fused = _fuse(retrieved, len(queries), plan, options, clock)
        return self._finish(asked, plan, retrieved, fused, options, steps, clock, notes)

    def _steps(self, options: SearchOptions) -> _Steps:
        """What follows the fusion. Raises what a wrong option raises, before anything is searched."""
        arrangement = Arrangement(self._targets, options) if options.rearranges else None
        if isinstance(options.rerank, str):
            return _Steps(self._rerankers(options.rerank, options.m3_weights), arrangement)
        return _Steps(options.rerank, arrangement)

    def _finish(
        self,
        queries: Sequence[AskedQuery],
        plan: Sequence[PlannedLeg],
        retrieved: _Retrieved,
        fused: Sequence[Sequence[FusedHit]],
        options: SearchOptions,
        steps: _Steps,
        clock: Clock,
        notes: tuple[str, ...],
    ) -> list[SearchResult]:
        """Turns the fused hits of each query into its result: rerank, arrange, cut the page, fetch,
        explain."""
        weights = {leg.name: leg.weight for leg in plan}
        legs = retrieved.by_query(len(queries))
        chances = [chances_of(rankings, options.method) for rankings in legs]
        ordered: Sequence[Sequence[FusedHit]] = fused
        rows: dict[RowName, StoredRow] = {}
        if (reranker := steps.reranker) is not None:
            rows = self._fetch(fused, plan, options, clock)
            with clock("rerank"):
                ordered = [
                    rerank(query.text, hits, rows, reranker)
                    for query, hits in zip(queries, fused, strict=True)
                ]
        if steps.arrangement is not None:
            with clock("arrange"):
                ordered = steps.arrangement(ordered, plan)
        pages = [hits[options.skipped : options.last_rank] for hits in ordered]
        if reranker is None:
            rows = self._fetch(pages, plan, options, clock)
        over_filter: Mapping[str, Facet] = {}
        if options.facets_filtered:
            with clock("facets"):
                over_filter = facets.over_filter(self._targets, options)
        results: list[SearchResult] = []
        for i, query in enumerate(queries):
            expansions = [of_leg[i] for of_leg in retrieved.expansions.values()]
            counted = over_filter
            if options.facets_found:
                with clock("facets"):
                    counted = facets.over_found(legs[i].values(), options.facets_found)
            page = [hit for hit in pages[i] if hit.row in rows]
            missing = len(pages[i]) - len(page) + len(fused[i]) - len(ordered[i])
            explanations: list[Explanation] = []
            if options.explain:
                with clock("explain"):
                    explanations = _explain(i, page, ordered[i], legs[i], plan, retrieved, options)
            results.append(
                SearchResult(
                    query=query.query,
                    hits=tuple(
                        make_hit(rank, hit, rows[hit.row], legs[i], chances[i], options)
                        for rank, hit in enumerate(page, options.skipped + 1)
                    ),
                    legs=legs[i],
                    weights=weights,
                    notes=(
                        *notes,
                        *query.notes(expansions, options, len(fused[i])),
                        *_notes(legs[i], chances[i], missing, options),
                    ),
                    explanations=tuple(explanations),
                    searched=expansions[0].text if expansions else query.text,
                    facets=counted,
                )
            )
        timings = clock.read()
        return [replace(result, timings=timings) for result in results]

    def _fetch(
        self,
        found: Sequence[Sequence[FusedHit]],
        plan: Sequence[PlannedLeg],
        options: SearchOptions,
        clock: Clock,
    ) -> dict[RowName, StoredRow]:
        """The rows of the hits of all queries."""
        with clock("fetch"):
            return fetch([hit for hits in found for hit in hits], self._targets, plan, options)


def _scope(options: SearchOptions) -> LegScope:
    return LegScope(
        depth=options.leg_depth,
        passages=options.passages,
        group_field=options.group_by,
        fields=options.found_fields,
    )


def _retrieve(
    asked: Sequence[AskedQuery], plan: Sequence[PlannedLeg], options: SearchOptions, clock: Clock
) -> _Retrieved:
    """Searches each leg in a thread; BM25, which needs no vectors, runs while the encoder encodes."""
    early = [leg for leg in plan if leg.leg is Leg.BM25]
    late = [leg for leg in plan if leg.leg is not Leg.BM25]
    texts = [query.text for query in asked]
    expansions = expand(texts, plan)
    vectors = _bm25(early, expansions)
    scope = _scope(options)

    def search_leg(leg: PlannedLeg) -> list[Ranking]:
        target, queries = leg.target, vectors[leg.name]
        passing = [query.filters.get(leg.name) for query in asked]
        rankings = retrieve(target.store, target.collection, leg.leg, leg.where, queries, scope, passing)
        said = expansions.get(leg.name, ())
        return trusted(leg, queries, rankings, options.method, said) if len(plan) > 1 else rankings

    if late:
        futures = {leg.name: start(_timed(clock, search_leg, leg)) for leg in early}
        try:
            vectors |= _encode(texts, late, clock)
            futures |= run_together({leg.name: _timed(clock, search_leg, leg) for leg in late})
        finally:
            wait(futures.values())
    else:
        futures = run_together({leg.name: _timed(clock, search_leg, leg) for leg in early})
    return _Retrieved({leg.name: futures[leg.name].result() for leg in plan}, vectors, expansions)


def _bm25(
    legs: Sequence[PlannedLeg], expansions: Mapping[str, Sequence[Expansion]]
) -> dict[str, Sequence[QueryVector]]:
    return {leg.name: [expansion.text for expansion in expansions[leg.name]] for leg in legs}


def _encode(
    texts: Sequence[str], legs: Sequence[PlannedLeg], clock: Clock
) -> Mapping[str, Sequence[QueryVector]]:
    with clock("load"):  # only before the first search of a process
        for leg in legs:
            leg.target.encoder().prepare()
    with clock("encode"):
        return encode(texts, legs)


def _retrieve_fused(
    asked: Sequence[AskedQuery], plan: Sequence[PlannedLeg], options: SearchOptions, clock: Clock
) -> tuple[_Retrieved, list[list[FusedHit]]]:
    """Searches both legs in one call, fused by Milvus, which does not return the legs."""
    texts = [query.text for query in asked]
    expansions = expand(texts, plan)
    vectors = _bm25([leg for leg in plan if leg.leg is Leg.BM25], expansions)
    vectors |= _encode(texts, [leg for leg in plan if leg.leg is not Leg.BM25], clock)
    with clock("server"):
        return _Retrieved({}, vectors, expansions), fuse_on_server(vectors, plan, options)


def _fuse(
    retrieved: _Retrieved, queries: int, plan: Sequence[PlannedLeg], options: SearchOptions, clock: Clock
) -> list[list[FusedHit]]:
    weights = {leg.name: leg.weight for leg in plan}
    with clock("fuse"):
        return [
            fuse_legs(rankings, weights, options, options.fused_count)
            for rankings in retrieved.by_query(queries)
        ]


def _timed(
    clock: Clock, search_leg: Callable[[PlannedLeg], list[Ranking]], leg: PlannedLeg
) -> Callable[[], list[Ranking]]:
    def job() -> list[Ranking]:
        with clock(leg.name):
            return search_leg(leg)

    return job


def _explain(
    number: int,
    hits: Sequence[FusedHit],
    found: Sequence[FusedHit],
    rankings: Mapping[str, Ranking],
    plan: Sequence[PlannedLeg],
    retrieved: _Retrieved,
    options: SearchOptions,
) -> list[Explanation]:
    matches: list[list[Match]] = [[] for _ in hits]
    for leg in plan:
        if leg.leg is not Leg.DENSE:
            vector = retrieved.vectors[leg.name][number]
            for known, new in zip(matches, find_matches(leg, vector, hits, rankings[leg.name]), strict=True):
                known += new
    weights = {leg.name: leg.weight for leg in plan}
    explanations = explain(
        [hit.fused for hit in hits],
        rankings,
        weights,
        matches,
        method=options.method,
        k=options.rank_constant,
        first_rank=options.skipped + 1,
        factors=factors_of_fusion(found, options),
    )
    texts = [boost.text for boost in options.boosts]
    return [
        replace(explanation, boosts=tuple(map(BoostFactor, texts, hit.factors)))
        for explanation, hit in zip(explanations, hits, strict=True)
    ]


def _stored_passages(
    target: SearchTarget, key: str, doc_id: str, source: str, tenant: str | None
) -> tuple[list[StoredRow], tuple[str, ...]]:
    """The rows of a document with their vectors, and notes; of a long document, evenly spread rows."""
    fields = [*JOINED, "passages", "dense"]
    if target.spec.sparse == "lexical":
        fields.append("lexical")
    owner = tenant_of(target.spec, target.name or target.collection, tenant)
    if owner is not None:
        fields.append(owner.field)
    first = target.store.get(target.collection, [passage_key(key, 0)], fields)
    if not first or (owner is not None and not owner.has(first[passage_key(key, 0)])):
        raise NotFoundError(f"There is no document {doc_id!r} of source {source!r} in this collection.")
    count = int(first[passage_key(key, 0)]["passages"])
    step = max(1.0, count / LIKE_PASSAGES)
    keys = [passage_key(key, int(i * step)) for i in range(min(count, LIKE_PASSAGES))]
    rows = first | target.store.get(target.collection, keys[1:], fields)
    compared = f"The document has {many(count, 'passage')}; {len(keys)} of them were compared."
    notes = [compared] * (count > len(keys))
    return [rows[key] for key in keys if key in rows], tuple(notes)


def _problem(text: str, options: SearchOptions) -> str | None:
    """Why a text is not a valid query, or None."""
    if not text.strip():
        return "The query is empty. Give at least one word."
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return (
            "The query is not valid Unicode text: it contains bytes that are not UTF-8, or a lone surrogate."
        )
    try:
        parse(text, options.query_syntax)
    except QueryError as error:
        return str(error)
    return None


def _notes(
    rankings: Mapping[str, Ranking], chances: Mapping[str, Chance], missing: int, options: SearchOptions
) -> list[str]:
    """Remarks for the user on a result."""
    notes: list[str] = []
    if options.explain and options.method == "evidence" and len(rankings) > 1 and not chances:
        notes.append(
            f"The ranks were fused: with fewer than {LEAST_HITS} dense hits, or with equal scores, nothing "
            "tells evidence from chance."
        )
    empty = [name for name, ranking in rankings.items() if not len(ranking)]
    if empty and len(empty) < len(rankings):
        others = " and ".join(name for name in rankings if name not in empty)
        notes.append(f"{' and '.join(empty)} found nothing. These hits are from {others} only.")
    if deeper := options.deeper_than_first_page:
        named = " and ".join(f"{name} {depth}" for name, depth in deeper.items())
        notes.append(
            f"This page was searched more deeply than the first one, so that a hit can be on both or on "
            f"neither. Search for all pages with {named}."
        )
    if missing:
        notes.append(f"{missing} of the hits had been removed before they could be read.")
    return notes
