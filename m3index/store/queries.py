"""The checks that every store makes before a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3index.errors import UsageError
from m3index.schema import CollectionSpec
from m3index.store.analyzer import terms
from m3index.store.base import MAX_LIMIT, QueryVector
from m3index.types import Leg, SparseVector


def check(spec: CollectionSpec, leg: Leg, queries: Sequence[QueryVector], limit: int) -> list[int]:
    """The indices of the queries that can have results. Raises UsageError for an invalid search."""
    if not 1 <= limit <= MAX_LIMIT:
        raise UsageError(f"A search returns from 1 to {MAX_LIMIT} results, not {limit}.")
    if leg is not Leg.DENSE and leg.value != spec.sparse:
        raise UsageError(
            f"The collection has no {leg.value} leg: its sparse vectors are of kind {spec.sparse}."
        )
    return [i for i, query in enumerate(queries) if _can_match(spec, leg, query)]


def _can_match(spec: CollectionSpec, leg: Leg, query: QueryVector) -> bool:
    match leg:
        case Leg.DENSE if isinstance(query, np.ndarray):
            if query.shape != (spec.dim,) or not np.isfinite(query).all():
                raise UsageError(f"A query's dense vector must be finite and have {spec.dim} dimensions.")
            return True
        case Leg.LEXICAL if isinstance(query, SparseVector):
            return len(query) > 0
        case Leg.BM25 if isinstance(query, str):
            return bool(terms(query))
    raise UsageError(f"The {leg.value} leg cannot be searched with a query of type {type(query).__name__}.")
