"""Queries -> hits: the legs at the same time, their fusion, then the texts of the final hits only."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import TypeAlias

from m3index.encoder.base import Encoder
from m3index.errors import NotFoundError, QueryError, UsageError
from m3index.search.explain import Explanation, Match, explain, lexical_matches
from m3index.search.fusion import Fused, Ranking, check_weights, combine
from m3index.search.legs import Scope, retrieve, retrieve_any
from m3index.search.options import SearchOptions
from m3index.search.rerank import Reranker
from m3index.store.analyzer import terms
from m3index.store.base import QueryVector, Store, StoredRow
from m3index.types import (
    DEFAULT_SOURCE,
    EncodedBatch,
    Hit,
    Leg,
    LegRank,
    Query,
    SparseKind,
    SparseVector,
    document_key,
    join_title,
    passage_key,
)

DEFAULTS = SearchOptions()
BATCH = 64
LIKE_PASSAGES = 64

_ID_FIELDS = ("doc_id", "ordinal", "source")
_TEXT_FIELDS = ("title", "text", "metadata")

EncoderSource: TypeAlias = Callable[[], Encoder]
"""Gives the encoder, loading it at the first call. A search that needs no vectors never calls it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A collection to search, by its concrete name.

    name: what its legs are called by where several collections are searched ("NAME:dense").
    fields: the fields that hits may be grouped by.
    """

    store: Store
    collection: str
    sparse: SparseKind
    encoder: EncoderSource
    name: str = ""
    fields: Collection[str] = ()


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
class _Leg:
    """A leg as planned: its name for people, and where it is asked."""

    name: str
    target: Target
    leg: Leg
    weight: float


@dataclass(frozen=True, slots=True)
class _Retrieved:
    """What the legs gave: by leg a ranking for each query; the vectors that they were asked with."""

    rankings: Mapping[str, Sequence[Ranking]]
    vectors: Mapping[str, Sequence[QueryVector]]


class Searcher:
    """Searches one collection, or several as further legs. It holds no connection of its own and may be
    used from several threads."""

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
            raise UsageError("`like` searches one collection.")
        if options.explain:
            raise UsageError("`like` has no explanation; leave out --explain.")
        clock = _Clock()
        key = document_key(source, doc_id)
        with clock("fetch"):
            rows, notes = self._stored_passages(self._targets[0], key, doc_id, source)
        plan, plan_notes = self._plan(options)
        scope = replace(self._scope(options), exclude=frozenset([key]), margin=len(rows))

        def ask(leg: _Leg) -> list[Ranking]:
            vectors = [_stored_vector(row, leg.leg) for row in rows]
            return [retrieve_any(leg.target.store, leg.target.collection, leg.leg, vectors, scope)]

        found = _at_once({leg.name: _timed(clock, leg.name, ask, leg) for leg in plan})
        retrieved = _Retrieved({name: future.result() for name, future in found.items()}, {})
        query = Query("", join_title(str(rows[0]["title"]), str(rows[0]["text"])))
        return self._finish([query], plan, retrieved, options, clock, (*notes, *plan_notes))[0]

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
            if len(queries) == 1:
                return [SearchResult(queries[0], notes=(str(error),))]
            return [result for query in queries for result in self._run_batch([query], options)]
        return [
            SearchResult(query, notes=(problems[i],)) if i in problems else next(answers)
            for i, query in enumerate(queries)
        ]

    # -- the steps

    def _answer(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        clock = _Clock()
        plan, notes = self._plan(options)
        retrieved = self._retrieve([query.text for query in queries], plan, options, clock)
        return self._finish(queries, plan, retrieved, options, clock, notes)

    def _plan(self, options: SearchOptions) -> tuple[list[_Leg], tuple[str, ...]]:
        """The legs that this search asks: those of its mode, which the collection has, of weight > 0."""
        legs: list[_Leg] = []
        notes: list[str] = []
        for target in self._targets:
            prefix = f"{target.name}:" if len(self._targets) > 1 else ""
            where = f"Collection {target.name or target.collection}"
            if options.group_by is not None and options.group_by not in target.fields:
                known = ", ".join(sorted(target.fields)) or "none"
                raise UsageError(
                    f"{where} has no field {options.group_by!r} to group by; there are: {known}."
                )
            if options.mode != "sparse":
                legs.append(_Leg(f"{prefix}dense", target, Leg.DENSE, 1.0))
            if options.mode == "dense":
                continue
            if target.sparse != "none":
                leg = Leg.LEXICAL if target.sparse == "lexical" else Leg.BM25
                legs.append(_Leg(f"{prefix}sparse", target, leg, 1.0))
            elif options.mode == "sparse":
                raise UsageError(f"{where} has no sparse vectors; search it with --mode dense.")
            else:
                notes.append(f"{where} has no sparse vectors: this is the dense leg alone.")
        if options.weights is not None:
            legs = self._weighed(legs, options.weights)
        return legs, tuple(notes)

    def _weighed(self, legs: Sequence[_Leg], weights: Mapping[str, float]) -> list[_Leg]:
        prefixes = [f"{t.name}:" for t in self._targets] if len(self._targets) > 1 else [""]
        known = [prefix + name for prefix in prefixes for name in ("dense", "sparse")]
        check_weights(weights, known)
        weighed = [replace(leg, weight=weights[leg.name]) for leg in legs if weights[leg.name] > 0]
        if not weighed:
            names = " and ".join(leg.name for leg in legs)
            raise UsageError(f"The weights leave out {names}, which is all that this search would ask.")
        return weighed

    def _scope(self, options: SearchOptions) -> Scope:
        return Scope(
            depth=options.leg_depth,
            where=options.where,
            passages=options.passages,
            group_field=options.group_by,
        )

    def _retrieve(
        self, texts: Sequence[str], plan: Sequence[_Leg], options: SearchOptions, clock: _Clock
    ) -> _Retrieved:
        """Every leg in a thread; BM25, which needs no vectors, is asked while the encoder works."""
        scope = self._scope(options)
        vectors: dict[str, Sequence[QueryVector]] = {}

        def ask(leg: _Leg) -> list[Ranking]:
            return retrieve(leg.target.store, leg.target.collection, leg.leg, vectors[leg.name], scope)

        def job(leg: _Leg) -> Callable[[], list[Ranking]]:
            return _timed(clock, leg.name, ask, leg)

        first = [leg for leg in plan if leg.leg is Leg.BM25]
        second = [leg for leg in plan if leg.leg is not Leg.BM25]
        vectors.update((leg.name, texts) for leg in first)
        if not second:
            found = _at_once({leg.name: job(leg) for leg in first})
        else:
            early = {leg.name: _threads().submit(job(leg)) for leg in first}
            with clock("encode"):
                vectors.update(_encode(texts, second))
            found = early | _at_once({leg.name: job(leg) for leg in second})
        rankings = {leg.name: found[leg.name].result() for leg in plan}
        return _Retrieved(rankings, vectors)

    def _finish(
        self,
        queries: Sequence[Query],
        plan: Sequence[_Leg],
        retrieved: _Retrieved,
        options: SearchOptions,
        clock: _Clock,
        notes: tuple[str, ...],
    ) -> list[SearchResult]:
        """Rankings -> results: fuse, fetch, rerank, explain."""
        weights = {leg.name: leg.weight for leg in plan}
        wanted = options.k if options.rerank is None else options.rerank_count
        legs = [{name: found[i] for name, found in retrieved.rankings.items()} for i in range(len(queries))]
        with clock("fuse"):
            found = [_found(rankings, weights, options, wanted) for rankings in legs]
        with clock("fetch"):
            self._fetch([f for part in found for f in part], plan, options)
        results: list[SearchResult] = []
        for i, query in enumerate(queries):
            present = [f for f in found[i] if f.row is not None]
            hits = [(f, _hit(f, legs[i], options)) for f in present]
            if options.rerank is not None and hits:
                with clock("rerank"):
                    hits = _reranked(query.text, hits, options.rerank)
            hits = [(f, replace(hit, rank=rank)) for rank, (f, hit) in enumerate(hits[: options.k], 1)]
            explanations: list[Explanation] = []
            if options.explain:
                with clock("explain"):
                    explanations = self._explain(i, [f for f, _ in hits], legs[i], plan, retrieved, options)
            results.append(
                SearchResult(
                    query=query,
                    hits=tuple(hit for _, hit in hits),
                    legs=legs[i],
                    weights=weights,
                    notes=(*notes, *_notes(legs[i], len(found[i]) - len(present))),
                    explanations=tuple(explanations),
                )
            )
        timings = clock.read()
        return [replace(result, timings=timings) for result in results]

    def _fetch(self, found: Sequence[_Found], plan: Sequence[_Leg], options: SearchOptions) -> None:
        """Reads the rows of what is shown, by key: one call for each collection."""
        fields = [*_ID_FIELDS, *(_TEXT_FIELDS if options.texts or options.rerank is not None else ())]
        if options.group_by is not None and options.group_by not in fields:
            fields.append(options.group_by)
        for target in self._targets:
            legs = {leg.name for leg in plan if leg.target is target}
            here = [f for f in found if f.leg in legs]
            if here:
                keys = list(dict.fromkeys(f.passage_id for f in here))
                rows = target.store.get(target.collection, keys, fields)
                for f in here:
                    f.row = rows.get(f.passage_id)

    def _explain(
        self,
        number: int,
        found: Sequence[_Found],
        rankings: Mapping[str, Ranking],
        plan: Sequence[_Leg],
        retrieved: _Retrieved,
        options: SearchOptions,
    ) -> list[Explanation]:
        matches: list[list[Match]] = [[] for _ in found]
        for leg in plan:
            if leg.leg is not Leg.DENSE:
                vector = retrieved.vectors[leg.name][number]
                for all_matches, some in zip(matches, _matches(leg, vector, found, rankings), strict=True):
                    all_matches += some
        weights = {leg.name: leg.weight for leg in plan}
        fused = [f.fused for f in found]
        return explain(fused, rankings, weights, matches, method=options.fusion, k=options.rrf_k)

    def _stored_passages(
        self, target: Target, key: str, doc_id: str, source: str
    ) -> tuple[list[StoredRow], tuple[str, ...]]:
        """The rows of a document with their vectors; for a long one, some spread evenly over it."""
        fields = ["title", "text", "passages", "dense"]
        if target.sparse == "lexical":
            fields.append("lexical")
        first = target.store.get(target.collection, [passage_key(key, 0)], fields)
        if not first:
            raise NotFoundError(f"There is no document {doc_id!r} of source {source!r} in this collection.")
        count = int(first[passage_key(key, 0)]["passages"])
        step = max(1.0, count / LIKE_PASSAGES)
        ordinals = [int(i * step) for i in range(min(count, LIKE_PASSAGES))]
        rows = target.store.get(target.collection, [passage_key(key, i) for i in ordinals], fields)
        notes: tuple[str, ...] = ()
        if count > LIKE_PASSAGES:
            notes = (f"The document has {count} passages; {LIKE_PASSAGES} of them were compared.",)
        return [rows[key] for key in sorted(rows)], notes


@dataclass(slots=True)
class _Found:
    """A fused id on its way to being a hit: its best passage, the leg which that is from, its row."""

    rank: int
    fused: Fused
    leg: str
    passage_id: str
    row: StoredRow | None = None


def _found(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float], options: SearchOptions, count: int
) -> list[_Found]:
    """The first `count` of the fused ranking. An id is shown by the passage of the leg that
    contributes most to it (of equal ones, the first leg)."""
    fused = combine(rankings, weights, method=options.fusion, k=options.rrf_k)[:count]
    passages = {name: dict(zip(r.ids, r.passages, strict=True)) for name, r in rankings.items()}
    found: list[_Found] = []
    for rank, item in enumerate(fused, 1):
        leg = max(item.contributions, key=lambda name: item.contributions[name])
        found.append(_Found(rank, item, leg, passages[leg][item.id]))
    return found


def _hit(found: _Found, rankings: Mapping[str, Ranking], options: SearchOptions) -> Hit:
    row = found.row
    assert row is not None
    legs: dict[str, LegRank] = {}
    for name, contribution in found.fused.contributions.items():
        place = rankings[name].ids.index(found.fused.id)
        legs[name] = LegRank(place + 1, rankings[name].scores[place], contribution)
    return Hit(
        rank=found.rank,
        doc_id=row["doc_id"],
        passage_id=found.passage_id,
        ordinal=row["ordinal"],
        source=row["source"],
        score=found.fused.score,
        title=row.get("title", ""),
        text=row.get("text", ""),
        metadata=row.get("metadata", {}),
        legs=legs,
        fused_rank=found.rank,
        group=row[options.group_by] if options.group_by is not None else None,
    )


def _reranked(query: str, hits: Sequence[tuple[_Found, Hit]], reranker: Reranker) -> list[tuple[_Found, Hit]]:
    """By the reranker's score, descending; of equal ones, the one that was before stays before."""
    scores = reranker.score(query, [join_title(hit.title, hit.text) for _, hit in hits])
    scored = [(f, replace(hit, rerank_score=float(s))) for (f, hit), s in zip(hits, scores, strict=True)]
    return sorted(scored, key=lambda item: -(item[1].rerank_score or 0.0))


def _matches(
    leg: _Leg, query: QueryVector, found: Sequence[_Found], rankings: Mapping[str, Ranking]
) -> list[list[Match]]:
    """For each hit the tokens that it shares with the query, in the passage that this leg found."""
    ranking = rankings[leg.name]
    passages = dict(zip(ranking.ids, ranking.passages, strict=True))
    keys = [passages.get(f.fused.id) for f in found]
    asked = sorted({key for key in keys if key is not None})
    if isinstance(query, SparseVector):
        rows = leg.target.store.get(leg.target.collection, asked, ["lexical"])
        ids = [int(id_) for id_ in query.indices]
        texts = dict(zip(ids, leg.target.encoder().token_texts(ids), strict=True))
        return [
            lexical_matches(query, rows[key]["lexical"], texts) if key is not None and key in rows else []
            for key in keys
        ]
    rows = leg.target.store.get(leg.target.collection, asked, ["title", "text"])
    wanted = terms(str(query))
    matched: list[list[Match]] = []
    for key in keys:
        row = rows.get(key) if key is not None else None
        has = terms(join_title(row["title"], row["text"])) if row is not None else ()
        matched.append([Match(term) for term in wanted if term in has])
    return matched


def _encode(texts: Sequence[str], legs: Sequence[_Leg]) -> dict[str, Sequence[QueryVector]]:
    """The vectors of dense and lexical legs: each encoder reads the queries once for all its legs."""
    lexical = {leg.target.encoder for leg in legs if leg.leg is Leg.LEXICAL}
    encoded: dict[EncoderSource, EncodedBatch] = {}
    vectors: dict[str, Sequence[QueryVector]] = {}
    for leg in legs:
        source = leg.target.encoder
        if source not in encoded:
            encoder = source()
            try:
                encoded[source] = encoder.encode_queries(texts, lexical=source in lexical)
            except UsageError as error:
                raise QueryError(str(error)) from error
        batch = encoded[source]
        if leg.leg is Leg.DENSE:
            vectors[leg.name] = list(batch.dense)
        else:
            assert batch.lexical is not None
            vectors[leg.name] = [batch.lexical.row(i) for i in range(len(texts))]
    return vectors


def _stored_vector(row: StoredRow, leg: Leg) -> QueryVector:
    """What a stored passage asks a leg with."""
    if leg is Leg.BM25:
        return join_title(str(row["title"]), str(row["text"]))
    vector: QueryVector = row[leg.value]
    return vector


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


# -- threads and time

_Job: TypeAlias = Callable[[], list[Ranking]]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="leg")


def _at_once(jobs: Mapping[str, _Job]) -> dict[str, Future[list[Ranking]]]:
    """Runs the jobs at the same time: the last one here, the others in a thread each."""
    *others, (name, mine) = jobs.items()
    futures = {other: _threads().submit(job) for other, job in others}
    here: Future[list[Ranking]] = Future()
    try:
        here.set_result(mine())
    except Exception as error:  # it is raised with the others, by result()
        here.set_exception(error)
    return futures | {name: here}


def _timed(clock: _Clock, name: str, ask: Callable[[_Leg], list[Ranking]], leg: _Leg) -> _Job:
    def job() -> list[Ranking]:
        with clock(name):
            return ask(leg)

    return job


class _Clock:
    """Seconds by step, and in all."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[step] = self._seconds.get(step, 0.0) + time.perf_counter() - start

    def read(self) -> dict[str, float]:
        return {**self._seconds, "total": time.perf_counter() - self._start}
