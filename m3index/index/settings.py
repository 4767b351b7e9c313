"""What a run may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from m3index.corpus.windows import PassageSettings
from m3index.errors import Exit
from m3index.index.collection import Wanted
from m3index.index.prune import MaxDelete
from m3index.schema import IndexChoice
from m3index.types import DEFAULT_SOURCE, FieldType, SparseKind, Storage

Mode: TypeAlias = Literal["ingest", "sync", "prune"]


class Stop(Protocol):
    """Asked between batches: True ends the run after the batch in hand, with `exit`."""

    def __call__(self) -> bool: ...

    @property
    def exit(self) -> Exit: ...


class Never:
    """Nobody stops this run."""

    exit = Exit.INTERRUPTED

    def __call__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """How a run goes about it. None: as the collection has it, or the default for a new one.

    max_delete: None is 10 %, at least 10 documents, and nothing at all where the corpus is empty.
    max_errors: more quarantined documents than that end the run with exit 17. force: encodes every
    document again.  retry_lock: seconds to wait for the lock. tenant_field: `org`, `org:int`. tenant: whose
    documents the run is about; it neither reads nor writes those of another.
    """

    source: str = DEFAULT_SOURCE
    passages: PassageSettings | None = None
    fields: Mapping[str, FieldType] | None = None
    sparse: SparseKind | None = None
    analyzer: str | None = None
    tenant_field: str | None = None
    storage: Storage | None = None
    index: IndexChoice | None = None
    tenant: str | None = None
    max_delete: MaxDelete | None = None
    max_errors: int | None = None
    force: bool = False
    retry_lock: float = 0.0

    @property
    def wanted(self) -> Wanted:
        return Wanted(
            self.sparse,
            self.fields,
            self.analyzer,
            self.passages,
            self.tenant_field,
            self.storage,
            self.index,
        )
