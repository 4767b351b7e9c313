"""What has changed: the corpus in windows, each compared with what the collection holds of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from m3index.corpus.hash import doc_hash, same_content
from m3index.corpus.mapping import declared
from m3index.corpus.windows import PassageSize
from m3index.index.seen import SeenKeys
from m3index.index.tenant import Tenant
from m3index.store.base import Store, StoredRow
from m3index.types import (
    Document,
    FieldType,
    FieldValue,
    Rejected,
    document_key,
    key_of_passage,
    passage_key,
)

T = TypeVar("T")

WINDOW_DOCUMENTS = 512
WINDOW_CHARACTERS = 8_000_000

OF_ANOTHER = "it is a document of another tenant than the run is for"
TAKEN = "its id is that of a document of another tenant; give each tenant a --source of its own"
REPEATED = "this id was met before in this corpus; the first document of it counts"


class Corpus(Protocol):
    """What a run reads. After a pass `complete` says whether all of it was read and every row had an
    id, `read_errors` which files could not be read to their end."""

    def __iter__(self) -> Iterator[Document | Rejected]: ...

    @property
    def complete(self) -> bool: ...

    @property
    def read_errors(self) -> Sequence[Rejected]: ...

    @property
    def bytes_read(self) -> int: ...

    @property
    def total_bytes(self) -> int | None: ...


class Change(StrEnum):
    ADDED = "added"
    UPDATED = "updated"
    METADATA = "metadata_only"


@dataclass(frozen=True, slots=True)
class Planned:
    """A document that must be written.

    stored: how many ordinals the store may hold of it. rows: how many rows it really holds.
    """

    document: Document
    key: str
    change: Change
    doc_hash: str
    fields: Mapping[str, FieldValue]
    stored: int = 0
    rows: int = 0


@dataclass(slots=True)
class Window:
    """What a stretch of the corpus comes to.

    rows: how many rows the collection rightly holds of this stretch's documents that are not planned.
    """

    scanned: int = 0
    unchanged: int = 0
    rows: int = 0
    planned: list[Planned] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def windows_of(corpus: Iterable[T]) -> Iterator[list[T]]:
    """The corpus in stretches of bounded count and size."""
    window: list[T] = []
    characters = 0
    for item in corpus:
        window.append(item)
        if isinstance(item, Document):
            characters += len(item.text)
        elif isinstance(item, Rejected):
            characters += len(item.raw)
        if len(window) == WINDOW_DOCUMENTS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


class Planner:
    """One pass over a corpus. Remembers what it has met: the keys of documents, and apart from
    them the keys of rows that are bad but have an id (their documents have not left the corpus).

    unidentified: rows without an id.
    """

    def __init__(
        self,
        store: Store,
        name: str | None,
        fields: Mapping[str, FieldType],
        source: str,
        passages: PassageSize,
        *,
        tenant_field: str | None = None,
        tenant: Tenant | None = None,
        force: bool = False,
    ) -> None:
        """name: the concrete collection; None where there is none yet, and all documents are new.
        tenant_field: none may be without it. tenant: whose documents alone this pass is about."""
        self.store = store
        self.name = name
        self.fields = fields
        self.source = source
        self.passages = passages
        self.tenant_field, self.tenant = tenant_field, tenant
        self.force = force
        self.seen = SeenKeys()
        self.protected = SeenKeys()
        self.unidentified = 0

    def __contains__(self, key: str) -> bool:
        """Whether the corpus has this document, be it good or bad."""
        digest = bytes.fromhex(key)
        return digest in self.seen or digest in self.protected

    def _admit(self, items: Sequence[Document | Rejected]) -> tuple[dict[str, Document], list[Rejected]]:
        """The documents that are met for the first time, by key, and the rows that are none."""
        documents: dict[str, Document] = {}
        rejected: list[Rejected] = []
        for item in items:
            if isinstance(item, Rejected):
                rejected.append(item)
                if item.doc_id is None:
                    self.unidentified += 1
                else:
                    self.protected.add(bytes.fromhex(document_key(self.source, item.doc_id)))
                continue
            key = document_key(self.source, item.doc_id)
            if self.seen.add(bytes.fromhex(key)):
                documents[key] = item
            else:
                rejected.append(Rejected.of(item, REPEATED))
        return documents, rejected

    def window(self, items: Sequence[Document | Rejected], *, only_keys: bool = False) -> Window:
        """Compares a window with the store, which is asked for the ordinals 0 in one strong read.

        only_keys: remembers which documents there are, and compares nothing.
        """
        documents, rejected = self._admit(items)
        window = Window(scanned=len(items), rejected=rejected)
        if only_keys:
            return window
        told = ["doc_hash", "passages", *([self.tenant.field] if self.tenant else [])]
        found = self._get([passage_key(key, 0) for key in documents], told)
        stored = {key_of_passage(passage_id): row for passage_id, row in found.items()}
        unfinished = {key: row["passages"] for key, row in stored.items() if not row["doc_hash"]}
        present = self._present(unfinished)
        for key, document in documents.items():
            row = stored.get(key)
            mine = row is None or self.tenant is None or self.tenant.has(row)
            passages: int = row["passages"] if row and mine else 0
            rows = present.get(key, passages) if mine else 0
            if reason := self._of_another(document, mine=mine):
                window.rejected.append(Rejected.of(document, reason))
                window.rows += rows
                continue
            digest = doc_hash(document, self.passages)
            if row and row["doc_hash"] == digest and not self.force:
                window.unchanged += 1
                window.rows += rows
                continue
            try:
                fields = declared(document, self.fields, self.tenant_field)
            except ValueError as error:
                window.rejected.append(Rejected.of(document, str(error)))
                window.rows += rows
                continue
            if row is None:
                change = Change.ADDED
            elif same_content(row["doc_hash"], digest) and not self.force:
                change = Change.METADATA
            else:
                change = Change.UPDATED
            window.planned.append(Planned(document, key, change, digest, fields, passages, rows))
        return window

    def _of_another(self, document: Document, *, mine: bool) -> str | None:
        """Why this document is not for a run of one tenant; mine: whether what is stored of it is."""
        if self.tenant is None:
            return None
        owner = document.metadata.get(self.tenant.field)
        if owner is not None and owner != self.tenant.value:
            return OF_ANOTHER
        return None if mine else TAKEN

    def _present(self, unfinished: Mapping[str, int]) -> dict[str, int]:
        """How many rows there are of documents that a crash left half written."""
        ids = [passage_key(key, o) for key, passages in unfinished.items() for o in range(passages)]
        found = self._get(ids, ["ordinal"])
        return {
            key: sum(passage_key(key, o) in found for o in range(passages))
            for key, passages in unfinished.items()
        }

    def _get(self, ids: Sequence[str], fields: Sequence[str]) -> dict[str, StoredRow]:
        return self.store.get(self.name, ids, fields) if self.name and ids else {}
