"""The metadata of a hit, for all retrievers."""

from __future__ import annotations

from typing import Any

from m3index.types import Hit


def metadata(hit: Hit) -> dict[str, Any]:
    """The metadata of the document, and the origin and score of the passage."""
    return {
        **hit.metadata,
        "doc_id": hit.doc_id,
        "source": hit.source,
        "ordinal": hit.ordinal,
        "title": hit.title,
        "score": hit.score,
    }
