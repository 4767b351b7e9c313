"""Turns rankings into hits: fuse them, read the rows of the hits, rerank, find what matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from m3index.search.evidence import Chance
from m3index.search.explain import lexical_matches
from m3index.search.fusion import Fused, Ranking, combine
from m3index.search.options import SearchOptions
from m3index.search.plan import PlannedLeg, SearchTarget
from m3index.search.rerank import Reranker
from m3index.search.result import Match
from m3index.store.analyzer import folded_words, stem, terms
from m3index.store.base import QueryVector, StoredRow
from m3index.types import JOINED, Hit, LegRank, SparseVector, join_title, joined

_ID_FIELDS = ("doc_id", "ordinal", "source")
_TEXT_FIELDS = (*JOINED, "anchor", "metadata")


@dataclass(frozen=True, slots=True)
class FusedHit:
    """A fused id before its row is read. It is shown by the passage that `leg` found."""

    rank: int
    fused: Fused
    leg: str
    passage_id: str


def fuse_legs(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float], options: SearchOptions, count: int
) -> list[FusedHit]:
    """The first `count` ids of the fused ranking. An id is shown by the passage of the leg that
    contributes most to it; in a tie, the first leg."""
    fused = combine(rankings, weights, method=options.method, k=options.rank_constant)[:count]
    passages = {name: dict(zip(r.ids, r.passages, strict=True)) for name, r in rankings.items()}
    hits: list[FusedHit] = []
    for rank, item in enumerate(fused, 1):
        leg = max(item.contributions, key=lambda name: item.contributions[name])
        hits.append(FusedHit(rank, item, leg, passages[leg][item.id]))
    return hits


def fetch(
    hits: Sequence[FusedHit],
    targets: Sequence[SearchTarget],
    plan: Sequence[PlannedLeg],
    options: SearchOptions,
) -> dict[tuple[str, str], StoredRow]:
    """The rows by leg and passage, with one call per collection. Removed rows are missing."""
    fields = [*_ID_FIELDS, *(_TEXT_FIELDS if options.texts or options.rerank is not None else ())]
    if options.group_by is not None and options.group_by not in fields:
        fields.append(options.group_by)
    rows: dict[tuple[str, str], StoredRow] = {}
    for target in targets:
        legs = {leg.name for leg in plan if leg.target is target}
        own = [hit for hit in hits if hit.leg in legs]
        if own:
            keys = list(dict.fromkeys(hit.passage_id for hit in own))
            stored = target.store.get(target.collection, keys, fields)
            rows |= {(h.leg, h.passage_id): stored[h.passage_id] for h in own if h.passage_id in stored}
    return rows


def make_hit(
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
        rank=hit.rank,
        doc_id=row["doc_id"],
        passage_id=hit.passage_id,
        ordinal=row["ordinal"],
        source=row["source"],
        score=hit.fused.score,
        title=row.get("title", ""),
        text=row.get("text", ""),
        metadata=row.get("metadata", {}),
        legs=legs,
        fused_rank=hit.rank,
        group=row[options.group_by] if options.group_by is not None else None,
        breadcrumb=row.get("breadcrumb", ""),
        anchor=row.get("anchor", ""),
    )


def rerank(
    query: str, hits: Sequence[tuple[FusedHit, Hit]], reranker: Reranker
) -> list[tuple[FusedHit, Hit]]:
    """Sorts hits by the reranker's score, descending; equal scores keep their order."""
    scores = reranker.score(query, [join_title(hit.title, hit.breadcrumb, hit.text) for _, hit in hits])
    scored = [(f, replace(hit, rerank_score=float(s))) for (f, hit), s in zip(hits, scores, strict=True)]
    return sorted(scored, key=lambda item: -(item[1].rerank_score or 0.0))


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
