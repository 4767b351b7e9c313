"""How far fusion by evidence trusts the votes of a leg for one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from m3index.search.fusion import Method, Ranking
from m3index.search.plan import PlannedLeg
from m3index.search.synonyms import Expansion
from m3index.store.analyzer import terms
from m3index.store.base import QueryVector, StoredRow
from m3index.types import JOINED, Leg, SparseVector, joined

SHARPNESS = 1.5
"""The power of the share of a query's words that is the trust. Chosen in benchmarks/fusion.py."""


def trusted(
    leg: PlannedLeg,
    queries: Sequence[QueryVector],
    rankings: Sequence[Ranking],
    method: Method,
    expansions: Sequence[Expansion] = (),
) -> list[Ranking]:
    """The rankings of the queries with the trust that fusion by evidence puts into them.

    The dense leg has that of its collection. A sparse leg is trusted by the share of the query's words that
    its best hit has (`by_share`). A query in another language than the documents shares some names and digits
    with them, and what it finds by those is little evidence. A synonym counts as the word. Other methods of
    fusion take the rankings as they are. expansions: of a sparse leg, what each query was made of, if it has
    synonyms.
    """
    if method != "evidence":
        return list(rankings)
    if leg.leg is Leg.DENSE:
        return [replace(ranking, trust=leg.target.dense_trust) for ranking in rankings]
    best = [ranking.passages[0] for ranking in rankings if len(ranking)]
    fields = ["lexical"] if leg.leg is Leg.LEXICAL else JOINED
    rows = leg.target.store.get(leg.target.collection, list(dict.fromkeys(best)), fields) if best else {}
    said = expansions or (None,) * len(queries)
    return [
        replace(ranking, trust=by_share(share(query, rows[ranking.passages[0]], expansion)))
        if len(ranking) and ranking.passages[0] in rows
        else ranking
        for query, expansion, ranking in zip(queries, said, rankings, strict=True)
    ]


def by_share(share: float) -> float:
    """The trust in a sparse leg whose best hit has this share of the query's words."""
    return float(share**SHARPNESS)


def share(query: QueryVector, row: StoredRow, expansion: Expansion | None = None) -> float:
    """The share of the words or tokens of a query that a passage has, itself or by their synonyms."""
    if isinstance(query, SparseVector):
        shared = len(np.intersect1d(query.indices, row["lexical"].indices, assume_unique=True))
        return min(1.0, _growth(expansion) * shared / max(len(query), 1))
    said = expansion or Expansion(str(query))
    wanted = terms(said.original).keys()
    present = terms(joined(row)).keys()
    has = wanted & present
    for term, others in said.found:
        if any(terms(other).keys() <= present for other in others):
            has |= wanted & terms(term).keys()
    return len(has) / max(len(wanted), 1)


def _growth(expansion: Expansion | None) -> float:
    """How many times as many words the query has with its synonyms."""
    if expansion is None or not expansion.found:
        return 1.0
    return len(terms(expansion.text)) / max(len(terms(expansion.original)), 1)
