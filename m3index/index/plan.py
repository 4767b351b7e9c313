"""Finds the changes: splits the corpus into windows and compares each with the collection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from m3index.corpus.digest import CorpusDigest
from m3index.corpus.hash import doc_hash, same_content
from m3index.corpus.listing import Listing
from m3index.corpus.mapping import declared
from m3index.corpus.places import Skipped
from m3index.corpus.windows import PassageSize
from m3index.index.row_versions import StoredRows
from m3index.index.seen import SeenKeys, Spellings
from m3index.index.tenant import Tenant
from m3index.schema import metadata_json
from m3index.store.base import Store, StoredRow
from m3index.store.filter import Compare, Filter, combine
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

OTHER_TENANT = "the document belongs to another tenant than this run"
ID_TAKEN = "a document of another tenant has this id; give each tenant a separate --source"
REPEATED_ID = "the id occurs more than once in this corpus; only the first document counts"


class Corpus(Protocol):
    """The documents that a run reads. After a pass, `complete` says whether everything was read and every row
    had an id, `read_errors` lists the files that could not be read to the end, and `listing` says which files
    gave rows."""

    def __iter__(self) -> Iterator[Document | Rejected]: ...

    @property
    def complete(self) -> bool: ...

    @property
    def read_errors(self) -> Sequence[Rejected]: ...

    @property
    def listing(self) -> Listing: ...

    @property
    def bytes_read(self) -> int: ...

    @property
    def total_bytes(self) -> int | None: ...

    @property
    def notes(self) -> Sequence[str]:
        """What people should know of the pass: what it skipped and left out."""
        ...

    @property
    def skip_counts(self) -> Mapping[str, int]:
        """How many entries of directories and globs the pass did not read, by reason."""
        ...

    def skips(self) -> Iterator[Skipped]:
        """Lists them anew."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether a second pass reads the same; not from a pipe."""
        ...

    def digest(self) -> CorpusDigest | None:
        """A digest of all that determines the documents, if one costs less than to read them."""
        ...

    def is_as_before(self, digest: CorpusDigest) -> bool:
        """Whether nothing has been changed since this digest was made."""
        ...


class Change(StrEnum):
    ADDED = "added"
    UPDATED = "updated"
    METADATA = "metadata_only"


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """A document to write.

    stored: the number of ordinals that the store may hold of it. rows: the number of rows it really holds.
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
    """The result of comparing one part of the corpus.

    rows: the number of rows in the collection of those documents in this part that are not planned.
    """

    scanned: int = 0
    unchanged: int = 0
    rows: int = 0
    planned: list[DocumentChange] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def windows_of(corpus: Iterable[T]) -> Iterator[list[T]]:
    """Splits the corpus into parts of bounded count and size."""
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
    """One pass over a corpus.

    seen: the keys of its documents. protected: the keys of rejected rows with an id, whose documents are
    still in the corpus. unidentified: the number of rows without an id.
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
        stored: Mapping[str, StoredRows] | None = None,
    ) -> None:
        """name: the concrete collection; None if it does not exist yet. tenant_field: the field that every
        document must have. tenant: limits the pass to the documents of one tenant. force: every document
        counts as changed. stored: what is known to be stored, where the first rows cannot be trusted."""
        self.store = store
        self.name = name
        self.fields = fields
        self.source = source
        self.passages = passages
        self.tenant_field, self.tenant = tenant_field, tenant
        self.force = force
        self.stored = stored or {}
        self.seen = SeenKeys()
        self.protected = SeenKeys()
        self.spellings = Spellings(self.seen, self._digest)
        self.unidentified = 0

    def _digest(self, doc_id: str) -> bytes:
        return bytes.fromhex(document_key(self.source, doc_id))

    def __contains__(self, key: str) -> bool:
        """Whether the corpus contains this document, valid or rejected."""
        digest = bytes.fromhex(key)
        return digest in self.seen or digest in self.protected

    @property
    def scope(self) -> str:
        """The source, and the tenant of a run that is limited to one, as a key."""
        return f"{self.source}\n{self.tenant.value}" if self.tenant else self.source

    @property
    def rows(self) -> Filter | None:
        """A filter for the rows that a pass covers."""
        return combine(Compare("source", "==", self.source), self.tenant.where if self.tenant else None)

    def _admit(self, items: Sequence[Document | Rejected]) -> tuple[dict[str, Document], list[Rejected]]:
        """The documents seen for the first time, by key, and the rejected rows."""
        documents: dict[str, Document] = {}
        rejected: list[Rejected] = []
        for item in items:
            if isinstance(item, Rejected):
                rejected.append(item)
                if item.doc_id is None:
                    self.unidentified += 1
                else:
                    self.protected.add(self._digest(item.doc_id))
                continue
            key = document_key(self.source, item.doc_id)
            if self.seen.add(bytes.fromhex(key)):
                documents[key] = item
                self.spellings.note(item.doc_id)
            else:
                rejected.append(Rejected.of(item, REPEATED_ID))
        return documents, rejected

    def window(self, items: Sequence[Document | Rejected], *, only_keys: bool = False) -> Window:
        """Compares a window with the store, with one strongly consistent read of the rows with ordinal 0.

        only_keys: only remember the keys, without comparing.
        """
        documents, rejected = self._admit(items)
        window = Window(scanned=len(items), rejected=rejected)
        if only_keys:
            return window
        columns = ["doc_hash", "passages", *([self.tenant.field] if self.tenant else [])]
        first_rows = self._get([passage_key(key, 0) for key in documents], columns)
        stored = {key_of_passage(passage_id): row for passage_id, row in first_rows.items()}
        unfinished = {key: row["passages"] for key, row in stored.items() if not row["doc_hash"]}
        present = self._count_rows(unfinished)
        for key, document in documents.items():
            row = stored.get(key)
            accessible = row is None or self.tenant is None or self.tenant.has(row)
            passages: int = row["passages"] if row and accessible else 0
            rows = present.get(key, passages) if accessible else 0
            if (known := self.stored.get(key)) and accessible:
                passages, rows = known.ordinals, known.rows
            if reason := self._tenant_problem(document, accessible=accessible):
                window.rejected.append(Rejected.of(document, reason))
                window.rows += rows
                continue
            try:
                digest = _hash(document, self.passages)
                if row and row["doc_hash"] == digest and not self.force:
                    window.unchanged += 1
                    window.rows += rows
                    continue
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
            window.planned.append(DocumentChange(document, key, change, digest, fields, passages, rows))
        return window

    def _tenant_problem(self, document: Document, *, accessible: bool) -> str | None:
        """Why the tenant of this run cannot write the document. accessible: no other tenant has its id."""
        if self.tenant is None:
            return None
        value = document.metadata.get(self.tenant.field)
        if value is not None and value != self.tenant.value:
            return OTHER_TENANT
        return None if accessible else ID_TAKEN

    def _count_rows(self, unfinished: Mapping[str, int]) -> dict[str, int]:
        """The number of stored rows of each document that a crash left half-written."""
        ids = [passage_key(key, o) for key, passages in unfinished.items() for o in range(passages)]
        rows = self._get(ids, ["ordinal"])
        return {
            key: sum(passage_key(key, o) in rows for o in range(passages))
            for key, passages in unfinished.items()
        }

    def _get(self, ids: Sequence[str], fields: Sequence[str]) -> dict[str, StoredRow]:
        return self.store.get(self.name, ids, fields) if self.name and ids else {}


def _hash(document: Document, size: PassageSize) -> str:
    """The hash of a document. Raises ValueError if its metadata is not JSON."""
    try:
        return doc_hash(document, size)
    except (TypeError, ValueError, RecursionError):
        metadata_json(document.metadata)
        raise
