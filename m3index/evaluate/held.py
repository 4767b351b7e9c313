"""The legs of judged queries, stored as ranks, which is enough to evaluate any fusion of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3index.errors import UsageError
from m3index.evaluate.formats import Qrels
from m3index.evaluate.measures import Values
from m3index.search.fusion import Ranking, fuse
from m3index.search.options import SearchOptions
from m3index.search.result import SearchResult
from m3index.types import DEFAULT_SOURCE, document_key

LEGS = ("dense", "sparse")

Positions: TypeAlias = NDArray[np.float64]
"""(relevant documents, settings): the position of each at each setting, from 1; infinite if not found."""


@dataclass(frozen=True, slots=True)
class HeldQuery:
    """A judged query with its legs.

    ranks: (documents, 2) from 1; 0 if a leg does not have the document; documents by id, ascending.
    relevant: the row numbers of the relevant documents that were found. gains: their relevance.
    ideal: the relevance of all relevant documents, descending, found or not. default: the position of each
    relevant document with the fusion of a search without weights, at the usual depth; infinite if not found.
    """

    query_id: str
    ranks: NDArray[np.int64]
    relevant: NDArray[np.int64]
    gains: Values
    ideal: Values
    default: Values


def hold(
    results: Iterable[SearchResult], qrels: Qrels, sources: Sequence[str] = (DEFAULT_SOURCE,)
) -> list[HeldQuery]:
    """The legs of judged queries; a query that could not be searched found nothing. results: hybrid searches
    over documents, as deep as the greatest depth to try. sources: where the judged documents are. Raises
    UsageError if a result lacks a leg, or no query has judgements."""
    held: list[HeldQuery] = []
    for result in results:
        judged = {d: level for d, level in qrels.get(result.query.query_id, {}).items() if level > 0}
        if judged:
            if not result.is_refused and set(result.legs) != set(LEGS):
                raise UsageError(
                    "Tuning weights the dense leg against the sparse leg, so the collection needs sparse "
                    "vectors, and the searches must be hybrid."
                )
            levels = {document_key(source, d): level for source in sources for d, level in judged.items()}
            held.append(_held_query(result, levels, sorted(judged.values(), reverse=True)))
    if not held:
        raise UsageError("No query has judgements of relevant documents, so there is nothing to tune on.")
    return held


def _held_query(result: SearchResult, levels: Mapping[str, int], ideal: Sequence[int]) -> HeldQuery:
    legs = [result.legs.get(name, Ranking()) for name in LEGS]
    ids = sorted({id_ for leg in legs for id_ in leg.ids})
    number = {id_: i for i, id_ in enumerate(ids)}
    ranks = np.zeros((len(ids), len(LEGS)), np.int64)
    for column, leg in enumerate(legs):
        for rank, id_ in enumerate(leg.ids, 1):
            ranks[number[id_], column] = rank
    relevant = [number[id_] for id_ in levels if id_ in number]
    gains = [levels[ids[i]] for i in relevant]
    usual = SearchOptions()
    cut = {name: _first(leg, usual.leg_depth) for name, leg in zip(LEGS, legs, strict=True)}
    fused = fuse(cut, dict.fromkeys(LEGS, 1.0), method=usual.method)
    places = {item.id: float(rank) for rank, item in enumerate(fused, 1)}
    return HeldQuery(
        query_id=result.query.query_id,
        ranks=ranks,
        relevant=np.array(relevant, np.int64),
        gains=np.array(gains, np.float64),
        ideal=np.array(ideal, np.float64),
        default=np.array([places.get(ids[i], math.inf) for i in relevant], np.float64),
    )


def _first(leg: Ranking, depth: int) -> Ranking:
    """What the leg finds when it is asked for `depth` documents."""
    return replace(
        leg,
        ids=leg.ids[:depth],
        scores=leg.scores[:depth],
        passages=leg.passages[:depth],
        depth=depth,
    )


def silver_qrels(results: Iterable[SearchResult], labels: int = 3) -> dict[str, dict[str, int]]:
    """Judgements from reranked results, for queries without human ones: a query's first hit has relevance
    `labels`, the next one less, down to 1. They reflect what the reranker prefers."""
    qrels: dict[str, dict[str, int]] = {}
    for result in results:
        for hit in result.hits[:labels]:
            if hit.rerank_score is None:
                raise UsageError("Silver labels come from a reranker; choose one.")
            level = labels + 1 - hit.rank
            qrels.setdefault(result.query.query_id, {}).setdefault(hit.doc_id, level)
    return qrels


def positions(query: HeldQuery, shares: Sequence[float], ks: Sequence[float], depth: int) -> Positions:
    """The positions of the relevant documents at each share and k: (relevant, shares, ks), from 1; infinite
    if no leg with a weight above 0 has the document. Equal to the order of `fusion.fuse`, ties by id."""
    k = np.asarray(ks, np.float64)
    share = np.asarray(shares, np.float64)[:, None]
    scores = np.zeros((len(query.ranks), len(shares), len(ks)))
    for column, weight in enumerate((1 - share, share)):
        rank = query.ranks[:, column]
        ranked = (rank > 0) & (rank <= depth)
        scores[ranked] += weight / (k + rank[ranked, None, None])
    places = np.full((len(query.relevant), len(shares), len(ks)), math.inf)
    for row, i in enumerate(query.relevant):
        before = (scores > scores[i]).sum(axis=0) + (scores[:i] == scores[i]).sum(axis=0)
        places[row] = np.where(scores[i] > 0, before + 1, math.inf)
    return places
