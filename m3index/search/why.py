"""Finds the stage of a search that keeps a document from the first hits: repairs one stage after the other
and searches again. A stage of the ranking is named only if the search with this repair alone shows the
document. The stages before it (no such document, a filter ...) are named in any case."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from m3index.corpus.quarantine import kept_row
from m3index.errors import QueryError, UsageError
from m3index.index.collection import generation_names, generation_number
from m3index.index.generations import LIVE
from m3index.index.tenant import tenant_of
from m3index.options import changed
from m3index.search.arrange import Arrangement
from m3index.search.assemble import FusedHit, fuse_legs
from m3index.search.explain import explain
from m3index.search.fusion import Fused, Ranking
from m3index.search.options import DIVERSE_HITS, SearchOptions, Sought
from m3index.search.passing import WordFilter, quoted
from m3index.search.plan import PlannedLeg, SearchTarget, conditions_of, encode, plan_legs
from m3index.search.rerank import lexical_score
from m3index.search.result import RankRange, SearchResult
from m3index.search.searcher import Rerankers, Searcher
from m3index.search.stages import Repair, Stage, Standing, Why
from m3index.search.terms import terms
from m3index.search.trust import trusted
from m3index.search.words import parse
from m3index.store.base import MAX_LIMIT, StoredRow
from m3index.store.filter import Compare, Filter, combine, without_parts
from m3index.store.half_precision import ROUNDOFF, rounded
from m3index.types import (
    DEFAULT_SOURCE,
    JOINED,
    Hit,
    Leg,
    SparseVector,
    document_key,
    joined,
    passage_key,
)

DEEPER = 8
"""How many times deeper a leg is asked each time for a document that it has not found."""

MOST_WORDS = 64
"""The most words of a document that are added to a query."""

COMPARED = 100
"""The documents of a leg among which the words of a document are rare or common."""

TOLERANCE = 1e-5
"""The relative difference up to which scores of a leg are equal, besides the rounding of stored vectors."""


def why(
    target: SearchTarget,
    query: str,
    options: Sought,
    *,
    rerankers: Rerankers | None = None,
    quarantines: Sequence[Path] = (),
    confined: bool = False,
) -> Why:
    """Why the document is not among the first hits of the query.

    quarantines: the files in which to look for its row. confined: say nothing of other tenants and of other
    generations. Raises the errors of `Searcher.search`.
    """
    return _Inquiry(target, query, options, rerankers, quarantines, confined=confined).answer()


@dataclass(frozen=True, slots=True)
class _Copy:
    """A document of the id; each source can have one. rows: of its passages, by ordinal."""

    source: str
    key: str
    rows: Mapping[int, StoredRow]

    @property
    def passages(self) -> int:
        """The number of its passages; without the first one, which knows it, one more than stored."""
        return int(self.rows[0]["passages"]) if 0 in self.rows else len(self.rows) + 1

    @property
    def stored(self) -> int:
        return sum(ordinal < self.passages for ordinal in self.rows)


class _Inquiry:
    """A document and a query. asked: the search as m3index makes it, with all hits that are reranked."""

    def __init__(
        self,
        target: SearchTarget,
        query: str,
        options: Sought,
        rerankers: Rerankers | None,
        quarantines: Sequence[Path],
        *,
        confined: bool,
    ) -> None:
        self.target, self.query, self.doc_id = target, query, options.doc_id
        self.quarantines, self.confined, self.rerankers = quarantines, confined, rerankers
        self.k, self.fusion = options.last_rank, options.fusion
        self.words = parse(query, options.query_syntax)
        self.said = target.synonyms.expand(self.words.text)
        self.judge = WordFilter(target.store, target.collection, self.words, passages=False)
        self.asked = changed(
            options.search,
            {
                "k": self.k,
                "offset": 0,
                "page": None,
                "depth": options.leg_depth,
                "fusion": options.method,  # Milvus's own fusion gives the same answer without its legs
                "texts": False,
            },
        )
        if options.rerank is not None:
            pool = options.rerank_count
            self.asked = changed(self.asked, {"k": min(pool, options.leg_depth), "rerank_depth": pool})
        elif options.diversity:
            self.asked = changed(self.asked, {"k": max(self.k, min(DIVERSE_HITS, options.leg_depth))})
        self.owner = tenant_of(target.spec, target.name or target.collection, options.tenant_name)
        self.notes: list[str] = []
        self.dropped: dict[str, None] = {}
        """The options that all later searches leave out."""

    # -- searches

    def search(self, changes: Mapping[str, Any] | None = None, query: str | None = None) -> SearchResult:
        """The search with these changes of its options. Raises the errors of `Searcher.search`."""
        searcher = Searcher(self.target, rerankers=self.rerankers)
        return searcher.search(query or self.query, changed(self.asked, changes or {}))

    def rank(self, result: SearchResult, key: str, options: SearchOptions | None = None) -> int | None:
        """The rank of the document in the result of a search with these options, by default those that were
        asked; beyond the hits too unless they are reranked, grouped or diverse."""
        options = options or self.asked
        for hit in result.hits:
            if document_key(hit.source, hit.doc_id) == key:
                return hit.rank
        if options.rerank is not None or options.group_by is not None or options.diversity:
            return None
        fused = fuse_legs(result.legs, result.weights, options)
        return _position(self.arrangement(options).by_values(fused), key)

    def arrangement(self, options: SearchOptions) -> Arrangement:
        return Arrangement([self.target], options)

    def fused(self, result: SearchResult) -> list[FusedHit]:
        """The whole fused ranking, of which the result has the first hits."""
        return fuse_legs(result.legs, result.weights, self.asked)

    def repaired(self, changes: Mapping[str, Any], key: str) -> Repair:
        rank = self.rank(self.search(changes), key, changed(self.asked, changes))
        return Repair({**self.dropped, **changes}, rank=rank)

    # -- the stages before the ranking

    def answer(self) -> Why:
        result = self.search()  # first, so that a wrong option or query is an error in any case
        copies = self.copies(self.target, self.owner.where if self.owner and self.confined else None)
        rejected = next((row for path in self.quarantines if (row := kept_row(path, self.doc_id))), None)
        if not copies:
            return self.absent(rejected)
        if rejected is not None:
            self.notes.append(f"A quarantine file has a row of it too ({rejected[0]}): {rejected[1]}.")
        own = [c for c in copies if self.asked.source in (None, c.source)]
        if not own:
            return self.of_another_source(copies)
        owner = self.owner
        theirs, own = own, [c for c in own if owner is None or all(map(owner.has, c.rows.values()))]
        if not own:
            return self.of_another_tenant(theirs[0])
        copy = min(own, key=lambda c: self.rank(result, c.key) or 2 * MAX_LIMIT)
        if len(own) > 1:
            others = " and ".join(repr(c.source) for c in own if c is not copy)
            self.notes.append(f"There is another document of this id in {others}.")
        ranked = _Ranked(self, copy, result)
        if ranked.rank is not None and ranked.rank <= self.k:
            return ranked.why(Stage.FOUND, Stage.FOUND.message.format(rank=ranked.rank))
        if copy.stored < copy.passages:
            said = Stage.INCOMPLETE.message.format(stored=copy.stored, passages=copy.passages)
            remedy = f"Sync its corpus again, or run m3index verify --repair --source {copy.source}."
            return self.why(Stage.INCOMPLETE, said, remedy, copy)
        if failed := self.unmet(copy):
            return self.filtered(copy, failed)
        if self.words.has_conditions and (left_out := self.left_out(copy)) is not None:
            return left_out
        if self.asked.group_by is not None:
            grouped, field = result, self.asked.group_by
            self.asked = changed(self.asked, {"group_by": None})
            ranked = _Ranked(self, copy, self.search())
            if ranked.rank is not None and ranked.rank <= self.k:
                return self.grouped(ranked, grouped, field)
            self.dropped = {"group_by": None}
            self.notes.append("The ranks and the remedy are those of the search without --group-by.")
        return ranked.answer()

    def copies(self, target: SearchTarget, where: Filter | None = None) -> list[_Copy]:
        """The documents of this id, that of the source `default` first."""
        owner = target.spec.tenant
        fields = ["source", "ordinal", "passages", *([owner] if owner is not None else [])]
        by_source: dict[str, dict[int, StoredRow]] = {}
        for row in target.store.scan(target.collection, combine(self.is_it, where), fields):
            by_source.setdefault(row["source"], {})[row["ordinal"]] = row
        names = sorted(by_source, key=lambda source: (source != DEFAULT_SOURCE, source))
        return [_Copy(name, document_key(name, self.doc_id), by_source[name]) for name in names]

    @property
    def is_it(self) -> Filter:
        return Compare("doc_id", "==", self.doc_id)

    def absent(self, rejected: tuple[str, str] | None) -> Why:
        if rejected is not None:
            said = Stage.QUARANTINED.message.format(place=rejected[0], reason=rejected[1])
            return self.why(Stage.QUARANTINED, said, "Correct the row there, and ingest that file.")
        for number, target in self.generations():
            if copies := self.copies(target):
                return self.of_another_generation(number, target, copies[0])
        said = Stage.ABSENT.message.format(collection=self.target.name or self.target.collection)
        return self.why(Stage.ABSENT, said, "Check the id, or ingest the document.")

    def generations(self) -> Iterator[tuple[int, SearchTarget]]:
        """The generations that do not serve, newest first."""
        store, alias = self.target.store, self.target.name
        if self.confined or not alias:
            return
        for name in reversed(generation_names(store, alias)):
            if name != self.target.collection and (number := generation_number(alias, name)) is not None:
                yield number, SearchTarget(store, name, store.spec(name), self.target.encoder, alias)

    def of_another_generation(self, number: int, target: SearchTarget, copy: _Copy) -> Why:
        alias = self.target.name
        said = Stage.GENERATION.message.format(
            generation=number,
            collection=alias,
            serving=generation_number(alias, self.target.collection),
        )
        there, here = (t.store.properties(t.collection) for t in (target, self.target))
        repair = None
        if there.get("space_id") == here.get("space_id"):  # else its vectors are of another encoder
            with suppress(UsageError):  # it lacks a field of the search
                result = Searcher(target, rerankers=self.rerankers).search(self.query, self.asked)
                repair = Repair(generation=number, rank=self.rank(result, copy.key))
        remedy = "Sync the corpus that has it, or wait until that generation is built and serves."
        if there.get("state", LIVE) == LIVE:
            rollback = f"m3index generations rollback --to {number}"
            remedy = f"Sync the corpus that has it, or let that generation serve: {rollback}."
        return self.why(Stage.GENERATION, said, remedy, copy, repair)

    def of_another_source(self, copies: Sequence[_Copy]) -> Why:
        sources = " and ".join(repr(c.source) for c in copies)
        said = Stage.SOURCE.message.format(sources=sources, source=self.asked.source)
        copy = copies[0]
        repair = self.repaired({"source": copy.source}, copy.key)
        return self.why(
            Stage.SOURCE, said, f"Search with --source {copy.source}{_then(repair)}.", copy, repair
        )

    def of_another_tenant(self, copy: _Copy) -> Why:
        assert self.owner is not None
        said = Stage.TENANT.message.format(tenant=self.owner.value)
        tenant = str(next(iter(copy.rows.values()))[self.owner.field])
        repair = self.repaired({"tenant": tenant}, copy.key)
        return self.why(Stage.TENANT, said, f"Search with --tenant {tenant}{_then(repair)}.", copy, repair)

    def unmet(self, copy: _Copy) -> list[str]:
        """The conditions of the search that no passage of the document meets. If there is one for each, but
        none that meets all, all conditions. Empty if a passage meets all."""
        conditions = conditions_of(self.target, self.asked)
        if self.passing(copy, combine(*conditions.values())):
            return []
        return [text for text, where in conditions.items() if not self.passing(copy, where)] or [*conditions]

    def left_out(self, copy: _Copy) -> Why | None:
        """If the document lacks a phrase of the query, or has what it excludes."""
        store, collection = self.target.store, self.target.collection
        meeting = self.passing(copy, combine(*conditions_of(self.target, self.asked).values()))
        every = [passage_key(copy.key, ordinal) for ordinal in copy.rows]
        rows = store.get(collection, every, JOINED)
        missing = [self.judge.missing(rows[key]) for key in meeting if key in rows]
        if all(missing):
            lacking = [p for p in self.words.phrases if all(p in of for of in missing)]
            phrases = lacking or self.words.phrases  # each is in a passage, but no passage has all
            said = Stage.PHRASE.message.format(phrases=quoted(phrases))
            return self.reworded(Stage.PHRASE, said, copy, str(self.words.without(phrases=phrases)))
        if excluded := self.judge.present(rows.values()):
            said = Stage.EXCLUDED.message.format(words=quoted(excluded))
            return self.reworded(Stage.EXCLUDED, said, copy, str(self.words.without(excluded=excluded)))
        return None

    def reworded(self, stage: Stage, said: str, copy: _Copy, query: str) -> Why:
        """A stage that another query repairs."""
        repair = Repair(query=query.strip(), rank=self.rank(self.search(query=query), copy.key))
        return self.why(stage, said, f"Search for {query.strip()} instead{_then(repair)}.", copy, repair)

    def passing(self, copy: _Copy, where: Filter | None) -> list[str]:
        """The keys of the passages of the document that meet a filter."""
        store = self.target.store
        rows = store.scan(self.target.collection, combine(self.of_copy(copy), where), [])
        return [row["passage_id"] for row in rows]

    def of_copy(self, copy: _Copy) -> Filter | None:
        return combine(self.is_it, Compare("source", "==", copy.source))

    def filtered(self, copy: _Copy, failed: Collection[str]) -> Why:
        said = Stage.FILTERED.message.format(conditions=" and ".join(failed))
        repair = self.repaired(_without(self.asked, failed), copy.key)
        these = "this condition" if len(failed) == 1 else "these conditions"
        return self.why(Stage.FILTERED, said, f"Search without {these}{_then(repair)}.", copy, repair)

    def grouped(self, ranked: _Ranked, grouped: SearchResult, field: str) -> Why:
        store, first = self.target.store, passage_key(ranked.copy.key, 0)
        value = store.get(self.target.collection, [first], [field])[first][field]
        same = [repr(hit.doc_id) for hit in grouped.hits if hit.group == value]
        said = Stage.GROUPED.message.format(other=same[0] if same else "Another document", field=field)
        repair = Repair({"group_by": None}, rank=ranked.rank)
        return ranked.why(Stage.GROUPED, said, f"Search without --group-by{_then(repair)}.", repair)

    def why(
        self,
        stage: Stage,
        reason: str,
        remedy: str = "",
        copy: _Copy | None = None,
        repair: Repair | None = None,
    ) -> Why:
        return Why(
            self.query,
            self.doc_id,
            self.k,
            stage,
            reason,
            remedy,
            source=None if copy is None else copy.source,
            repair=repair,
            notes=tuple(self.notes),
        )


_FUSION_ALONE: Mapping[str, None] = dict.fromkeys(("rerank", "group_by", "sort", "diversity"))
"""Changes of a search that leave out what follows the fusion, but for the boosts: their fields are read."""


class _Ranked:
    """A document that the search can rank, and the result of the search as it was asked."""

    def __init__(self, inquiry: _Inquiry, copy: _Copy, result: SearchResult) -> None:
        self.inquiry, self.copy, self.result = inquiry, copy, result
        self.asked, self.k, self.key = inquiry.asked, inquiry.k, copy.key
        self.rank = inquiry.rank(result, copy.key)
        self.hits = inquiry.fused(result) if inquiry.asked.group_by is None else []
        self.fused = _position(self.hits, self.key)

    def why(self, stage: Stage, reason: str, remedy: str = "", repair: Repair | None = None) -> Why:
        return Why(
            self.inquiry.query,
            self.inquiry.doc_id,
            self.k,
            stage,
            reason,
            remedy,
            source=self.copy.source,
            rank=self.rank,
            fused_rank=self.fused,
            legs=self.standings,
            repair=repair,
            notes=tuple(self.inquiry.notes),
        )

    def answer(self) -> Why:
        """The first stage whose repair alone shows the document. Without one, the legs rank it too low. A
        document that is found and sorted is kept out by the sort, whatever would show it without."""
        if self.asked.sort is not None and self.rank is not None:
            return self.sorted(self.rank)
        is_moved = self.asked.rerank is not None or self.asked.rearranges
        is_moved_away = is_moved and self.fused is not None and self.fused <= self.k
        found = None if is_moved_away else self.lost() or self.beyond_depth() or self.outvoted()
        return found or self.reranked() or self.boosted() or self.diversified() or self.outranked()

    # -- the legs

    @cached_property
    def legs(self) -> dict[str, PlannedLeg]:
        """All legs of the collection, those too that the search does not ask."""
        plan, _ = plan_legs([self.inquiry.target], changed(self.asked, {"mode": "hybrid", "weights": None}))
        return {leg.name: leg for leg in plan}

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """The rankings of all legs, each as deep as the search."""
        found = self.result.legs
        return {
            name: found[name] if name in found else self.trusted(leg, self.alone(name, self.depth))
            for name, leg in self.legs.items()
        }

    def trusted(self, leg: PlannedLeg, ranking: Ranking) -> Ranking:
        """The ranking of a leg that was searched alone as the fusion would have it."""
        said = self.inquiry.said
        vector = said.text if leg.leg is Leg.BM25 else self.vectors[leg.name][0]
        return trusted(leg, [vector], [ranking], self.asked.method, [said])[0]

    @property
    def depth(self) -> int:
        return self.asked.leg_depth

    def alone(self, leg: str, depth: int) -> Ranking:
        """The ranking of one leg."""
        one = {"mode": leg, "weights": None, "k": 1, "depth": depth, **_FUSION_ALONE}
        return self.inquiry.search(one).legs[leg]

    @cached_property
    def standings(self) -> dict[str, Standing]:
        if not self.hits and self.asked.group_by is not None:
            return {}
        votes = next((hit.fused.contributions for hit in self.hits if hit.fused.id == self.key), {})
        standings: dict[str, Standing] = {}
        for name, ranking in self.rankings.items():
            deep = self.deep(name, ranking)
            position = deep.ids.index(self.key) if deep is not None else None
            standings[name] = Standing(
                asked=name in self.result.legs,
                weight=float(self.result.weights.get(name, 0.0)),
                depth=self.depth,
                rank=None if position is None else position + 1,
                score=None if position is None or deep is None else float(deep.scores[position]),
                last_score=float(ranking.scores[-1]) if len(ranking) else None,
                vote=votes.get(name),
            )
        return standings

    def deep(self, leg: str, ranking: Ranking) -> Ranking | None:
        """A ranking of the leg that has the document; None if the leg does not find it at any depth."""
        depth = self.depth
        while self.key not in ranking.ids:
            is_whole = len(ranking) < depth and not self.inquiry.words.has_conditions
            if is_whole or depth == MAX_LIMIT:
                return None
            depth = min(depth * DEEPER, MAX_LIMIT)
            ranking = self.alone(leg, depth)
        return ranking

    @property
    def ranks(self) -> str:
        return " and ".join(f"the {name} leg {standing}" for name, standing in self.standings.items())

    @property
    def votes(self) -> str:
        if not self.hits:
            return ""
        own = next((hit.fused.score for hit in self.hits if hit.fused.id == self.key), 0.0)
        last = self.hits[min(self.wanted, len(self.hits)) - 1]
        return f"Its score is {own:.4g}, and that of rank {last.rank:,} is {last.fused.score:.4g}."

    @property
    def wanted(self) -> int:
        """The fused rank that is good enough: for a hit, or for the reranker."""
        return self.k if self.asked.rerank is None else self.asked.rerank_count

    @property
    def fused_text(self) -> str:
        return "does not get it" if self.fused is None else f"puts it at rank {self.fused:,}"

    # -- the stages

    def tried(self, changes: Mapping[str, Any]) -> Repair | None:
        """The search with these changes, if it shows the document."""
        repair = self.inquiry.repaired(changes, self.key)
        return repair if repair.rank is not None and repair.rank <= self.k else None

    def lost(self) -> Why | None:
        """If an index left the document out of a leg, although its score belongs there."""
        repaired: dict[str, Ranking] = {}
        for name in self.result.legs:
            if self.key not in self.rankings[name].ids and (ranking := self.exactly(name)) is not None:
                repaired[name] = ranking
        if not repaired:
            return None
        wanted = None if self.asked.rearranges else self.wanted
        hits = fuse_legs({**self.result.legs, **repaired}, self.result.weights, self.asked, wanted)
        if _position(hits, self.key) is None:
            return None
        leg, ranking = next(iter(repaired.items()))
        said = Stage.LOST.message.format(leg=leg, rank=ranking.ids.index(self.key) + 1)
        wider = (self.depth * factor for factor in (2, 4, 8) if self.depth * factor <= MAX_LIMIT)
        repair = next((r for depth in wider if (r := self.tried({"depth": depth})) is not None), None)
        if repair is None and self.asked.rearranges:
            return None
        remedy = (
            "Measure the index with m3index verify --recall, and build one that searches more widely: "
            "m3index reindex --index LEG.search.NAME=VALUE."
        )
        if repair is not None:
            remedy = f"Search with {_flags(repair.changes)}{_then(repair)}. {remedy}"
        return self.why(Stage.LOST, said, remedy, repair)

    def exactly(self, name: str) -> Ranking | None:
        """The ranking of a leg with the document at the place that its exact score gives it; None if that is
        beyond the depth, or the document has no score."""
        leg, ranking = self.legs[name], self.rankings[name]
        own = self.exact_scores(leg, self.passing(leg.where))
        if not own:
            return None
        passage, score = max(own.items(), key=lambda item: item[1])
        others = dict(zip(ranking.passages, ranking.scores, strict=True))
        if leg.leg is not Leg.BM25:  # the scores of an index can be those of shortened vectors
            others |= self.exact_scores(leg, list(ranking.passages))
        store = leg.target.store
        is_full = (
            len(ranking) >= self.depth
            or self.inquiry.words.has_conditions  # a leg is not looked through to its end
            or store.count(leg.target.collection, leg.where) > MAX_LIMIT
        )
        margin = TOLERANCE * max(1.0, abs(score)) + ROUNDOFF[leg.target.spec.storage]
        if is_full and score <= min(others.values(), default=score) + margin:
            return None
        ids = dict(zip(ranking.passages, ranking.ids, strict=True)) | {passage: self.key}
        ordered = sorted([*others.items(), (passage, score)], key=lambda item: (-item[1], item[0]))
        return replace(
            ranking,
            ids=tuple(ids[p] for p, _ in ordered[: self.depth]),
            scores=tuple(s for _, s in ordered[: self.depth]),
            passages=tuple(p for p, _ in ordered[: self.depth]),
        )

    def passing(self, where: Filter | None) -> list[str]:
        """The keys of the passages that a leg can find: they meet its filter and have the phrases."""
        keys = self.inquiry.passing(self.copy, where)
        if not self.inquiry.words.phrases:
            return keys
        target = self.inquiry.target
        rows = target.store.get(target.collection, keys, JOINED)
        return [key for key in keys if key in rows and not self.inquiry.judge.missing(rows[key])]

    def exact_scores(self, leg: PlannedLeg, passages: Sequence[str]) -> dict[str, float]:
        """The scores of these passages from their stored vectors; for BM25, those of the document's own by a
        search among them, since only the store knows how rare a word is."""
        store, collection = leg.target.store, leg.target.collection
        if leg.leg is Leg.BM25:
            where = combine(self.inquiry.of_copy(self.copy), leg.where)
            limit = min(max(1, len(passages)), MAX_LIMIT)
            [candidates] = store.search(collection, leg.leg, [self.inquiry.said.text], limit, where)
            return {c.passage_id: c.score for c in candidates if c.passage_id in passages}
        [query] = self.vectors[leg.name]
        rows = store.get(collection, passages, [leg.leg.value])
        if isinstance(query, SparseVector):
            scores = {key: lexical_score(query, row["lexical"]) for key, row in rows.items()}
            return {key: score for key, score in scores.items() if score > 0}
        assert isinstance(query, np.ndarray)
        vector = rounded(query, leg.target.spec.storage)
        return {key: float(vector @ row["dense"]) for key, row in rows.items()}

    @cached_property
    def vectors(self) -> dict[str, Any]:
        return encode(
            [self.inquiry.words.text], [leg for leg in self.legs.values() if leg.leg is not Leg.BM25]
        )

    def beyond_depth(self) -> Why | None:
        asked = [standing for standing in self.standings.values() if standing.asked]
        depths = sorted({s.rank for s in asked if s.rank is not None and s.rank > self.depth})
        repair = next((r for depth in depths if (r := self.tried({"depth": depth})) is not None), None)
        if repair is None:
            return None
        said = Stage.DEPTH.message.format(depth=self.depth, ranks=self.ranks)
        return self.why(Stage.DEPTH, said, f"Search with {_flags(repair.changes)}{_then(repair)}.", repair)

    def outvoted(self) -> Why | None:
        """If other weights of the legs show the document; also those of a leg that was not asked."""
        if len(self.rankings) != 2 or not any(self.key in r.ids for r in self.rankings.values()):
            return None
        dense, sparse = self.rankings
        weights = {name: self.result.weights.get(name, 0.0) for name in self.rankings}
        [explanation] = explain(
            [Fused(self.key, 0.0, {})],
            self.rankings,
            weights,
            [[]],
            method=self.asked.method,
            k=self.asked.rank_constant,
            factors=self.factors,
        )
        share = _nearest_share(explanation.ranks, explanation.share or 0.0, self.wanted)
        if share is None:
            return None
        named: dict[str, Any] = {} if self.asked.mode == "hybrid" else {"mode": "hybrid"}
        if (self.inquiry.fusion or "rrf") != self.asked.fusion:  # weights alone mean rrf
            named["fusion"] = self.asked.fusion
        repair = self.tried({**named, "weights": {dense: round(1 - share, 4), sparse: round(share, 4)}})
        if repair is None:
            return None
        said = Stage.FUSION.message.format(fused=self.fused_text, ranks=self.ranks, votes=self.votes)
        return self.why(Stage.FUSION, said, f"Search with {_flags(repair.changes)}{_then(repair)}.", repair)

    def reranked(self) -> Why | None:
        if self.asked.rerank is None or self.fused is None:
            return None
        if self.fused > self.asked.rerank_count:
            if self.fused > self.depth:
                return None
            repair = self.tried({"rerank_depth": self.fused, "k": self.k})
            reranked = f"only the first {self.asked.rerank_count:,} are reranked"
        else:
            repair = self.tried({"rerank": None, "rerank_depth": None, "rerank_weights": None, "k": self.k})
            rank = self.rank_by(lambda hit: hit.rerank_score)
            reranked = "the reranker drops it" if rank is None else f"the reranker puts it at rank {rank:,}"
        if repair is None:
            return None
        how = (
            f"with --rerank-depth {self.fused}"
            if self.fused > self.asked.rerank_count
            else "without --rerank, or with another reranker"
        )
        said = Stage.RERANKING.message.format(fused=self.fused_text, reranked=reranked)
        return self.why(Stage.RERANKING, said, f"Search {how}{_then(repair)}.", repair)

    def boosted(self) -> Why | None:
        own = next((hit for hit in self.hits if hit.fused.id == self.key), None)
        if not self.asked.boosts or own is None:
            return None
        repair = self.tried({"boost": None})
        if repair is None:
            return None
        if self.asked.rerank is None:
            alone = self.inquiry.arrangement(changed(self.asked, {"sort": None, "diversity": None}))
            rank = _position(alone.by_values(self.hits), self.key)
        else:
            rank = self.rank_by(lambda hit: hit.boosted_score)
        texts = [boost.text for boost in self.asked.boosts]
        factors = self.inquiry.arrangement(self.asked).factors(own.values)
        said = Stage.BOOSTS.message.format(
            before=self.before,
            rank=rank,
            factors=" and ".join(f"{f:.4g} by {t!r}" for f, t in zip(factors, texts, strict=True)),
        )
        return self.why(Stage.BOOSTS, said, f"Search without --boost{_then(repair)}.", repair)

    def sorted(self, rank: int) -> Why:
        repair = self.inquiry.repaired({"sort": None}, self.key)
        said = Stage.SORTING.message.format(order=self.asked.sort, rank=rank)
        remedy = f"Search without --sort{_then(repair)}."
        if rank <= MAX_LIMIT:
            remedy += f" -k {rank} shows it."
        return self.why(Stage.SORTING, said, remedy, repair)

    def diversified(self) -> Why | None:
        if not self.asked.diversity:
            return None
        repair = self.tried({"diversity": None})
        if repair is None:
            return None
        said = Stage.DIVERSITY.message.format(before=self.before, first=DIVERSE_HITS)
        return self.why(Stage.DIVERSITY, said, f"Search without --diversity{_then(repair)}.", repair)

    def rank_by(self, score: Callable[[Hit], float | None]) -> int | None:
        """The rank of the document among the hits by one of their scores."""
        ordered = sorted(self.result.hits, key=lambda hit: -(score(hit) or 0.0))
        keys = [document_key(hit.source, hit.doc_id) for hit in ordered]
        return keys.index(self.key) + 1 if self.key in keys else None

    @property
    def before(self) -> str:
        """The beginning of a sentence on a later step."""
        if self.asked.rerank is None:
            return f"The fusion {self.fused_text}"
        return f"The reranker puts it at rank {self.rank_by(lambda hit: hit.rerank_score)}"

    @cached_property
    def factors(self) -> dict[str, float]:
        """What the boosts multiply the fused score of each id by, as in a search without a reranker."""
        if not self.asked.boosts or self.asked.rerank is not None:
            return {}
        factors = self.inquiry.arrangement(self.asked).factors
        return {
            id_: math.prod(factors(values))
            for r in self.rankings.values()
            for id_, values in r.values.items()
        }

    def outranked(self) -> Why:
        repair = self.better_query()
        remedies = [f'Ask in more of its words, as "{repair.query}"{_then(repair)}.'] if repair else []
        if self.rank is not None and self.rank <= MAX_LIMIT:
            remedies.append(f"-k {self.rank} shows it.")
        said = Stage.OUTRANKED.message.format(ranks=self.ranks, votes=self.votes)
        return self.why(Stage.OUTRANKED, said.rstrip(), " ".join(remedies), repair)

    def better_query(self) -> Repair | None:
        """The query with the fewest of the document's words that show it; words that few of the present hits
        have come first. If all of them do not do, these words without the query. None if no query does."""
        words = self.words()
        best: Repair | None = None
        low, high = 0, 1
        while best is None and low < len(words):
            high = min(high, len(words))
            best = self.asked_as(self.inquiry.query, *words[:high])
            if best is None:
                low, high = high, 2 * high
        if best is None:
            return self.asked_as(*words) if words else None
        while high - low > 1:
            middle = (low + high) // 2
            fewer = self.asked_as(self.inquiry.query, *words[:middle])
            best, low, high = (best, middle, high) if fewer is None else (fewer, low, middle)
        return best

    def asked_as(self, *words: str) -> Repair | None:
        """The search with another query, if it shows the document."""
        query = " ".join(words)
        try:
            rank = self.inquiry.rank(self.inquiry.search(query=query), self.key)
        except QueryError:  # too long for the model
            return None
        if rank is None or rank > self.k:
            return None
        return Repair(self.inquiry.dropped, query=query, rank=rank)

    def words(self) -> list[str]:
        """The words of its best passage that are not in the query: first those that the fewest of the
        documents in the legs have, of these the words of the title, then the longest ones."""
        store, collection = self.inquiry.target.store, self.inquiry.target.collection
        own = self.best_passage()
        others = dict.fromkeys(key for r in self.rankings.values() for key in r.passages[:COMPARED])
        rows = store.get(collection, [own, *others], JOINED)
        texts = {key: joined(row) for key, row in rows.items()}
        common = Counter(word for key in others if key in texts for word in _words(texts[key]))
        title, asked = _words(rows[own]["title"]), _words(self.inquiry.query)
        words = {
            word: text for word, text in _words(texts[own]).items() if word not in asked and len(word) > 1
        }
        order = sorted(words, key=lambda word: (common[word], word not in title, -len(word)))
        return [words[word] for word in order][:MOST_WORDS]

    def best_passage(self) -> str:
        """The passage of the document that the first leg finds, else its first one."""
        for name, ranking in self.rankings.items():
            deep = self.deep(name, ranking)
            if deep is not None:
                return deep.passages[deep.ids.index(self.key)]
        return passage_key(self.key, 0)


def _words(text: str) -> dict[str, str]:
    """The words of a text as they are written, by their folded form."""
    words: dict[str, str] = {}
    for term in terms(text):
        words.setdefault(term.text, text[term.start : term.end])
    return words


def _position(hits: Sequence[FusedHit], key: str) -> int | None:
    """The rank of the document among these hits."""
    return next((rank for rank, hit in enumerate(hits, 1) if hit.fused.id == key), None)


def _nearest_share(ranges: Sequence[RankRange], current: float, wanted: int) -> float | None:
    """The share nearest to the current one at which the rank is good enough: a round one, if one fits."""
    good = [r for r in ranges if r.rank <= wanted and r.end > r.start]
    if not good:
        return None
    nearest = min(good, key=lambda r: max(r.start - current, current - r.end, 0.0))
    for steps in (20, 100, 1000):
        points = [i / steps for i in range(1, steps) if nearest.start < i / steps < nearest.end]
        if points:
            return min(points, key=lambda share: abs(share - current))
    return (nearest.start + nearest.end) / 2


def _without(asked: SearchOptions, failed: Collection[str]) -> dict[str, Any]:
    """The filters of the search without these conditions, as changes of its options."""
    changes: dict[str, Any] = {}
    if asked.filter is not None and asked.filter in failed:
        changes["filter"] = None
    if asked.where is not None and (kept := without_parts(asked.where, failed)) != asked.where:
        changes["where"] = kept
    return changes


def _then(repair: Repair) -> str:
    return "" if repair.rank is None else f": then it is at rank {repair.rank:,}"


def _flags(changes: Mapping[str, Any]) -> str:
    """The flags of the command line for changes of depth, mode and weights."""
    texts = {
        name: ",".join(f"{leg}={weight:g}" for leg, weight in value.items())
        if isinstance(value, Mapping)
        else str(value)
        for name, value in changes.items()
        if value is not None
    }
    return " ".join(f"--{name} {text}" for name, text in texts.items())
