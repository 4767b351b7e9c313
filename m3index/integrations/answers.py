"""What the retrievers return of a hit."""

from __future__ import annotations

from typing import Any

from m3index.errors import UsageError
from m3index.evaluate.runs import order_score
from m3index.search.options import SearchOptions
from m3index.types import Hit

PREFIX = "m3index_"
"""Begins the names of the metadata that m3index adds; the other names are the document's."""


def of_hits(options: SearchOptions) -> SearchOptions:
    """The options of a search whose hits are all that its caller gets. Raises UsageError for more."""
    if options.facets:
        raise UsageError("A retriever returns documents only, not facets. Count them with Index.search.")
    return options


def added(hit: Hit) -> dict[str, Any]:
    """The origin and the score of a passage, under names that begin with `m3index_`."""
    own = {
        "doc_id": hit.doc_id,
        "source": hit.source,
        "ordinal": hit.ordinal,
        "title": hit.title,
        "breadcrumb": hit.breadcrumb,
        "anchor": hit.anchor,
        "score": order_score(hit),
    }
    return {PREFIX + name: value for name, value in own.items()}


def metadata(hit: Hit) -> dict[str, Any]:
    """The metadata of the document, unchanged, and those of m3index.

    `title` is the document's title, unless its metadata has one.
    """
    title = {"title": hit.title} if hit.title else {}
    return {**title, **hit.metadata, **added(hit)}
