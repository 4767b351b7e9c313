"""What every store asks of a search before it is run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3index.errors import UsageError
from m3index.schema import CollectionSpec
from m3index.store.analyzer import terms
from m3index.store.base import QueryVector
from m3index.types import Leg, SparseVector

MAX_LIMIT = 16_384
"""The most results of one search that Milvus gives."""


def check(spec: CollectionSpec, leg: Leg, queries: Sequence[QueryVector], limit: int) -> list[int]:
    """The numbers of the queries that can find anything. Raises UsageError for what cannot be asked."""
    if not 1 <= limit <= MAX_LIMIT:
        raise UsageError(f"A search gives from 1 to {MAX_LIMIT} results, not {limit}.")
    if leg is not Leg.DENSE and leg.value != spec.sparse:
        raise UsageError(
            f"The collection has no {leg.value} leg: its sparse vectors are of kind {spec.sparse}."
        )
    return [i for i, query in enumerate(queries) if _asks(spec, leg, query)]


def _asks(spec: CollectionSpec, leg: Leg, query: QueryVector) -> bool:
    match leg:
        case Leg.DENSE if isinstance(query, np.ndarray):
            if query.shape != (spec.dim,) or not np.isfinite(query).all():
                raise UsageError(f"A query's dense vector must be finite and {spec.dim} wide.")
            return True
        case Leg.LEXICAL if isinstance(query, SparseVector):
            return len(query) > 0
        case Leg.BM25 if isinstance(query, str):
            return bool(terms(query))
    raise UsageError(f"The {leg.value} leg cannot be asked with {type(query).__name__}.")
