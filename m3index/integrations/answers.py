"""What the retrievers share: one search, by an index here or behind a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from m3index.api import Index
from m3index.search.searcher import SearchResult
from m3index.serve.client import RemoteIndex
from m3index.types import Hit

AnyIndex: TypeAlias = Index | RemoteIndex


def search(
    index: AnyIndex,
    query: str,
    *,
    k: int,
    mode: str = "hybrid",
    weights: Mapping[str, float] | None = None,
    where: Sequence[str] = (),
) -> SearchResult:
    """where: conditions as of the command line, `lang=en`."""
    if isinstance(index, RemoteIndex):
        return index.search(query, k=k, mode=mode, weights=weights, where=list(where))
    return index.search(query, k=k, mode=mode, weights=weights, where=index.where(where))


def metadata(hit: Hit) -> dict[str, Any]:
    """The document's own metadata, and beside it where the passage is from."""
    return {
        **hit.metadata,
        "doc_id": hit.doc_id,
        "source": hit.source,
        "ordinal": hit.ordinal,
        "title": hit.title,
        "score": hit.score,
    }
