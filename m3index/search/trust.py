"""How far fusion by evidence trusts the votes of a leg for one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from m3index.search.fusion import Method, Ranking
from m3index.search.plan import PlannedLeg
from m3index.store.analyzer import terms
from m3index.store.base import QueryVector, StoredRow
from m3index.types import JOINED, Leg, SparseVector, joined


def trusted(
    leg: PlannedLeg, queries: Sequence[QueryVector], rankings: Sequence[Ranking], method: Method
) -> list[Ranking]:
    """The rankings of the queries with the trust that fusion by evidence puts into them.

    The dense leg has that of its collection. A sparse leg is trusted by the share of the query's words that
    its best hit has. A query in another language than the documents shares some names and digits with them,
    and what it finds by those is little evidence. Other methods of fusion take the rankings as they are.
    """
    if method != "evidence":
        return list(rankings)
    if leg.leg is Leg.DENSE:
        return [replace(ranking, trust=leg.target.dense_trust) for ranking in rankings]
    best = [ranking.passages[0] for ranking in rankings if len(ranking)]
    fields = ["lexical"] if leg.leg is Leg.LEXICAL else JOINED
    rows = leg.target.store.get(leg.target.collection, list(dict.fromkeys(best)), fields) if best else {}
    return [
        replace(ranking, trust=share(query, rows[ranking.passages[0]]))
        if len(ranking) and ranking.passages[0] in rows
        else ranking
        for query, ranking in zip(queries, rankings, strict=True)
    ]


def share(query: QueryVector, row: StoredRow) -> float:
    """The share of the words or tokens of a query that a passage has."""
    if isinstance(query, SparseVector):
        shared = len(np.intersect1d(query.indices, row["lexical"].indices, assume_unique=True))
        return shared / max(len(query), 1)
    wanted = terms(str(query)).keys()
    return len(wanted & terms(joined(row)).keys()) / max(len(wanted), 1)
