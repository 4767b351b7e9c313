"""Turns rankings into hits: fuse them, read the rows of the hits, rerank, find what matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from m3index.search.evidence import Chance
from m3index.search.explain import lexical_matches
from m3index.search.fusion import Fused, Ranking, combine
from m3index.search.options import SearchOptions
from m3index.search.plan import PlannedLeg, SearchTarget
from m3index.search.rerank import Reranker
from m3index.search.result import Match
from m3index.store.analyzer import folded_words, stem, terms
from m3index.store.base import QueryVector, StoredRow
from m3index.types import JOINED, FieldValue, Hit, LegRank, SparseVector, joined

_ID_FIELDS = ("doc_id", "ordinal", "source")
_TEXT_FIELDS = (*JOINED, "anchor", "metadata")


RowName: TypeAlias = tuple[str, str]
"""A row among those of all collections: the leg that found it, and its primary key."""


@dataclass(frozen=True, slots=True)
class FusedHit:
    """A fused id before its row is read. It is shown by the passage that `leg` found.

    rank: by the fusion alone. values: those of `found_fields`. rerank_score: what the reranker gave. factors:
    those of the boosts. boosted_score: the score before, times these.
    """

    rank: int
    fused: Fused
    leg: str
    passage_id: str
    values: Mapping[str, FieldValue] = field(default_factory=dict)
    rerank_score: float | None = None
    factors: tuple[float, ...] = ()
    boosted_score: float | None = None

    @property
    def score(self) -> float:
        """The score that counts: boosted, or of the reranker, or fused."""
        if self.boosted_score is not None:
            return self.boosted_score
        return self.fused.score if self.rerank_score is None else self.rerank_score

    @property
    def row(self) -> RowName:
        """The row that shows it."""
        return self.leg, self.passage_id


def fuse_legs(
    rankings: Mapping[str, Ranking],
    weights: Mapping[str, float],
    options: SearchOptions,
    count: int | None = None,
) -> list[FusedHit]:
    """The first `count` ids of the fused ranking, by default all. An id is shown by the passage of the leg
    that contributes most to it; in a tie, the first leg."""
    fused = combine(rankings, weights, method=options.method, k=options.rank_constant)[:count]
    passages = {name: dict(zip(r.ids, r.passages, strict=True)) for name, r in rankings.items()}
    hits: list[FusedHit] = []
    for rank, item in enumerate(fused, 1):
        leg = max(item.contributions, key=lambda name: item.contributions[name])
        hits.append(FusedHit(rank, item, leg, passages[leg][item.id], rankings[leg].values.get(item.id, {})))
    return hits


def fetch(
    hits: Sequence[FusedHit],
    targets: Sequence[SearchTarget],
    plan: Sequence[PlannedLeg],
    options: SearchOptions,
) -> dict[RowName, StoredRow]:
    """The rows that show the hits, as far as the result and the reranker need them."""
    fields = [*_ID_FIELDS, *(_TEXT_FIELDS if options.texts or options.rerank is not None else ())]
    if options.group_by is not None and options.group_by not in fields:
        fields.append(options.group_by)
    return read_rows(hits, targets, plan, fields)


def read_rows(
    hits: Sequence[FusedHit],
    targets: Sequence[SearchTarget],
    plan: Sequence[PlannedLeg],
    fields: Sequence[str],
) -> dict[RowName, StoredRow]:
    """These fields of the rows that show the hits, with one call per collection. Removed rows are missing."""
    rows: dict[RowName, StoredRow] = {}
    for target in targets:
        legs = {leg.name for leg in plan if leg.target is target}
        own = [hit for hit in hits if hit.leg in legs]
        if own:
            keys = list(dict.fromkeys(hit.passage_id for hit in own))
            stored = target.store.get(target.collection, keys, fields)
            rows |= {hit.row: stored[hit.passage_id] for hit in own if hit.passage_id in stored}
    return rows


def make_hit(
    rank: int,
    hit: FusedHit,
    row: StoredRow,
    rankings: Mapping[str, Ranking],
    chances: Mapping[str, Chance],
    options: SearchOptions,
) -> Hit:
    legs: dict[str, LegRank] = {}
    for name, contribution in hit.fused.contributions.items():
        position = rankings[name].ids.index(hit.fused.id)
        score = rankings[name].scores[position]
        by_chance = chances[name].expected(score) if name in chances else None
        legs[name] = LegRank(position + 1, score, contribution, by_chance)
    return Hit(
        rank=rank,
        doc_id=row["doc_id"],
        passage_id=hit.passage_id,
        ordinal=row["ordinal"],
        source=row["source"],
        score=hit.fused.score,
        title=row.get("title", ""),
        text=row.get("text", ""),
        metadata=row.get("metadata", {}),
        legs=legs,
        rerank_score=hit.rerank_score,
        boosted_score=hit.boosted_score,
        fused_rank=hit.rank,
        group=row[options.group_by] if options.group_by is not None else None,
        breadcrumb=row.get("breadcrumb", ""),
        anchor=row.get("anchor", ""),
    )


def rerank(
    query: str, hits: Sequence[FusedHit], rows: Mapping[RowName, StoredRow], reranker: Reranker
) -> list[FusedHit]:
    """The hits whose rows are known, by the reranker's score, descending; equal scores keep their order."""
    known = [hit for hit in hits if hit.row in rows]
    if not known:
        return []
    texts = [joined(rows[hit.row]) for hit in known]
    scores = reranker.score(query, texts)
    scored = [replace(hit, rerank_score=float(score)) for hit, score in zip(known, scores, strict=True)]
    return sorted(scored, key=lambda hit: -(hit.rerank_score or 0.0))


def find_matches(
    leg: PlannedLeg, query: QueryVector, hits: Sequence[FusedHit], ranking: Ranking
) -> list[list[Match]]:
    """The tokens that each hit shares with the query, in the passage that this leg found."""
    passages = dict(zip(ranking.ids, ranking.passages, strict=True))
    keys = [passages.get(hit.fused.id) for hit in hits]
    stored_keys = sorted({key for key in keys if key is not None})
    store, collection = leg.target.store, leg.target.collection
    if isinstance(query, SparseVector):
        rows = store.get(collection, stored_keys, ["lexical"])
        ids = [int(id_) for id_ in query.indices]
        texts = dict(zip(ids, leg.target.encoder().token_texts(ids), strict=True))
        return [
            lexical_matches(query, rows[key]["lexical"], texts) if key is not None and key in rows else []
            for key in keys
        ]
    rows = store.get(collection, stored_keys, JOINED)
    query_words = dict.fromkeys(folded_words(str(query)))
    matched: list[list[Match]] = []
    for key in keys:
        row = rows.get(key) if key is not None else None
        passage_terms = terms(joined(row)) if row is not None else ()
        matched.append([Match(word) for word in query_words if stem(word) in passage_terms])
    return matched
