"""Rankings -> hits: fuse, read the rows of what is shown, rerank, find what matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from m3index.search.explain import Match, lexical_matches
from m3index.search.fusion import Fused, Ranking, combine
from m3index.search.options import SearchOptions
from m3index.search.plan import PlannedLeg, Target
from m3index.search.rerank import Reranker
from m3index.store.analyzer import terms
from m3index.store.base import QueryVector, StoredRow
from m3index.types import Hit, LegRank, SparseVector, join_title

_ID_FIELDS = ("doc_id", "ordinal", "source")
_TEXT_FIELDS = ("title", "text", "metadata")


@dataclass(frozen=True, slots=True)
class Found:
    """A fused id on its way to being a hit: shown by the passage that `leg` found."""

    rank: int
    fused: Fused
    leg: str
    passage_id: str


def fuse_legs(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float], options: SearchOptions, count: int
) -> list[Found]:
    """The first `count` of the fused ranking. An id is shown by the passage of the leg that
    contributes most to it (of equal ones, the first leg)."""
    fused = combine(rankings, weights, method=options.method, k=options.rrf_k)[:count]
    passages = {name: dict(zip(r.ids, r.passages, strict=True)) for name, r in rankings.items()}
    found: list[Found] = []
    for rank, item in enumerate(fused, 1):
        leg = max(item.contributions, key=lambda name: item.contributions[name])
        found.append(Found(rank, item, leg, passages[leg][item.id]))
    return found


def fetch(
    found: Sequence[Found], targets: Sequence[Target], plan: Sequence[PlannedLeg], options: SearchOptions
) -> dict[tuple[str, str], StoredRow]:
    """The rows by leg and passage: one call for each collection. A row that has left is not there."""
    fields = [*_ID_FIELDS, *(_TEXT_FIELDS if options.texts or options.rerank is not None else ())]
    if options.group_by is not None and options.group_by not in fields:
        fields.append(options.group_by)
    rows: dict[tuple[str, str], StoredRow] = {}
    for target in targets:
        legs = {leg.name for leg in plan if leg.target is target}
        here = [f for f in found if f.leg in legs]
        if here:
            keys = list(dict.fromkeys(f.passage_id for f in here))
            read = target.store.get(target.collection, keys, fields)
            rows |= {(f.leg, f.passage_id): read[f.passage_id] for f in here if f.passage_id in read}
    return rows


def make_hit(found: Found, row: StoredRow, rankings: Mapping[str, Ranking], options: SearchOptions) -> Hit:
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


def rerank(query: str, hits: Sequence[tuple[Found, Hit]], reranker: Reranker) -> list[tuple[Found, Hit]]:
    """By the reranker's score, descending; of equal ones, the one that was before stays before."""
    scores = reranker.score(query, [join_title(hit.title, hit.text) for _, hit in hits])
    scored = [(f, replace(hit, rerank_score=float(s))) for (f, hit), s in zip(hits, scores, strict=True)]
    return sorted(scored, key=lambda item: -(item[1].rerank_score or 0.0))


def find_matches(
    leg: PlannedLeg, query: QueryVector, found: Sequence[Found], ranking: Ranking
) -> list[list[Match]]:
    """For each hit the tokens that it shares with the query, in the passage that this leg found."""
    passages = dict(zip(ranking.ids, ranking.passages, strict=True))
    keys = [passages.get(f.fused.id) for f in found]
    asked = sorted({key for key in keys if key is not None})
    store, collection = leg.target.store, leg.target.collection
    if isinstance(query, SparseVector):
        rows = store.get(collection, asked, ["lexical"])
        ids = [int(id_) for id_ in query.indices]
        texts = dict(zip(ids, leg.target.encoder().token_texts(ids), strict=True))
        return [
            lexical_matches(query, rows[key]["lexical"], texts) if key is not None and key in rows else []
            for key in keys
        ]
    rows = store.get(collection, asked, ["title", "text"])
    wanted = terms(str(query))
    matched: list[list[Match]] = []
    for key in keys:
        row = rows.get(key) if key is not None else None
        has = terms(join_title(row["title"], row["text"])) if row is not None else ()
        matched.append([Match(term) for term in wanted if term in has])
    return matched
