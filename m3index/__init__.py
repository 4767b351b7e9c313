"""m3index: index a multilingual corpus in Milvus with BGE-M3, and keep the index in sync with it.

    from m3index import Document, Index

    with Index("docs", uri="m3index.db", encoder="offline") as index:
        index.sync("corpus.jsonl", fields={"lang": str, "year": int})
        for hit in index.search("why does the sea rise", k=5, where={"lang": "en"}):
            print(hit.rank, hit.doc_id, hit.score)

`Index` opens a collection in this process, `connect` one behind `m3index serve`. Both have the same search
methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3index.api import Index
    from m3index.errors import (
        CollectionNotFoundError,
        DeletesWithheldError,
        DriftError,
        FilterError,
        GateError,
        LockedError,
        M3IndexError,
        MismatchError,
        MissingHeadError,
        ModelNotFoundError,
        NotAuthorisedError,
        NotFoundError,
        QueryError,
        StoppedError,
        StoreError,
        UnreachableError,
        UsageError,
    )
    from m3index.evaluate.recall import IndexRecall, RecallReport
    from m3index.index.generations import Generation
    from m3index.index.reindex import ReindexPlan
    from m3index.index.state import Status
    from m3index.index.summary import Summary
    from m3index.index.verify import Difference, Verification
    from m3index.search.result import SearchResult
    from m3index.search.stages import Stage, Why
    from m3index.serve.client import RemoteIndex, connect
    from m3index.types import Document, Hit, LegRank, Query, StoredDocument, StoredPassage

    __version__: str

_HOMES = {
    "m3index.api": ["Index"],
    "m3index.serve.client": ["RemoteIndex", "connect"],
    "m3index.types": ["Document", "Hit", "LegRank", "Query", "StoredDocument", "StoredPassage"],
    "m3index.search.result": ["SearchResult"],
    "m3index.search.stages": ["Stage", "Why"],
    "m3index.evaluate.recall": ["IndexRecall", "RecallReport"],
    "m3index.index.summary": ["Summary"],
    "m3index.index.verify": ["Difference", "Verification"],
    "m3index.index.state": ["Status"],
    "m3index.index.generations": ["Generation"],
    "m3index.index.reindex": ["ReindexPlan"],
    "m3index.errors": [
        "CollectionNotFoundError", "DeletesWithheldError", "DriftError", "FilterError", "GateError",
        "LockedError", "M3IndexError", "MismatchError", "MissingHeadError", "ModelNotFoundError",
        "NotAuthorisedError", "NotFoundError", "QueryError", "StoppedError", "StoreError",
        "UnreachableError", "UsageError",
    ],
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CollectionNotFoundError", "DeletesWithheldError", "Difference", "Document", "DriftError",
    "FilterError", "GateError", "Generation", "Hit", "Index", "IndexRecall", "LegRank", "LockedError",
    "M3IndexError", "MismatchError", "MissingHeadError", "ModelNotFoundError", "NotAuthorisedError",
    "NotFoundError", "Query", "QueryError", "RecallReport", "ReindexPlan", "RemoteIndex", "SearchResult",
    "Stage", "Status", "StoppedError", "StoreError", "StoredDocument", "StoredPassage", "Summary",
    "UnreachableError", "UsageError", "Verification", "Why", "__version__", "connect",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports public names on first use, which keeps the command line fast. Raises AttributeError."""
    if name == "__version__":
        from importlib import (
            metadata,
        )  # imported here because it is slower to import than the rest of the package

        try:
            return metadata.version("m3index")
        except metadata.PackageNotFoundError:  # the source tree is not installed
            return "0.1.0.dev0"
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
