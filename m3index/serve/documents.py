"""One document as it is stored: its passages in order."""

from __future__ import annotations

from typing import Any

from m3index.api import Index
from m3index.errors import NotFoundError, UsageError
from m3index.types import DEFAULT_SOURCE, document_key, passage_key

MAX_PASSAGES = 100


def document_json(
    index: Index,
    doc_id: str,
    source: str = DEFAULT_SOURCE,
    start: int = 0,
    count: int = MAX_PASSAGES,
    tenant: str | None = None,
) -> dict[str, Any]:
    """Title, metadata and the passages `start` to `start + count`, which overlap as they were cut.

    `passages` is how many the document has. tenant: whose it must be. Raises NotFoundError.
    """
    if start < 0 or not 1 <= count <= MAX_PASSAGES:
        raise UsageError(f"Passages count from 0, and 1 to {MAX_PASSAGES} of them are read at a time.")
    name, key, owner = index.target().name, document_key(source, doc_id), index.owner(tenant)
    told = ["title", "metadata", "passages", *([owner.field] if owner else [])]
    row = index.store.get(name, [passage_key(key, 0)], told).get(passage_key(key, 0))
    if row is None or (owner and not owner.has(row)):
        raise NotFoundError(f"There is no document {doc_id!r} of source {source!r} in this collection.")
    keys = [passage_key(key, i) for i in range(start, min(start + count, row["passages"]))]
    found = index.store.get(name, keys, ["ordinal", "text"])
    return {
        "doc_id": doc_id,
        "source": source,
        "title": row["title"],
        "metadata": dict(row["metadata"]),
        "passages": row["passages"],
        "texts": [
            {"ordinal": found[k]["ordinal"], "passage_id": k, "text": found[k]["text"]}
            for k in keys
            if k in found
        ],
    }
