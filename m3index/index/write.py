"""The order of writes that makes a crash harmless.

At any moment, for every document: no rows at all; or an ordinal 0 whose `passages` is at least the
number of its rows, and whose `doc_hash` is empty unless the rows are exactly the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from m3index.errors import RowRefusedError
from m3index.schema import CollectionSpec
from m3index.store.base import Store, StoredRow
from m3index.types import Row, SparseVector, key_of_passage, passage_key

READ_ROWS = 500


@dataclass(frozen=True, slots=True)
class Rewrite:
    """All rows of one document as they shall be, ordinal 0 first.

    stored: how many ordinals the store may hold now, 0 where the document is new.
    """

    key: str
    rows: Sequence[Row]
    stored: int

    @property
    def at_once(self) -> bool:
        """One passage before and after: a single upsert is the whole change."""
        return len(self.rows) == 1 and self.stored <= 1


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that the store would not take. `removed`: its rows of before are gone too."""

    key: str
    reason: str
    removed: bool


def write(store: Store, name: str, rewrites: Sequence[Rewrite]) -> list[Refused]:
    """Writes whole documents; returns those that the store refused (their neighbours are written).

    A document refused at its first row stays as it was. One refused later is removed: half a
    document would look like a whole one.
    """
    refused: dict[str, Refused] = {}

    def upsert(rows: Iterable[Row], *, begun: bool) -> None:
        wanted = [row for row in rows if key_of_passage(row.passage_id) not in refused]
        for key, reason in _upsert(store, name, wanted).items():
            refused[key] = Refused(key, reason, removed=begun)

    larger = [r for r in rewrites if not r.at_once]
    upsert((_mark(r.rows[0], max(r.stored, len(r.rows))) for r in larger), begun=False)
    upsert((row for r in larger for row in r.rows[1:]), begun=True)
    stale = [
        passage_key(r.key, ordinal)
        for r in larger
        if r.key not in refused
        for ordinal in range(len(r.rows), r.stored)
    ]
    if stale:
        store.delete(name, stale)
    upsert((r.rows[0] for r in larger), begun=True)
    upsert((r.rows[0] for r in rewrites if r.at_once), begun=False)
    broken = [r for r in larger if r.key in refused and refused[r.key].removed]
    if broken:
        _delete_ordinals(store, name, {r.key: range(max(r.stored, len(r.rows))) for r in broken})
    return list(refused.values())


def remove(store: Store, name: str, spec: CollectionSpec, documents: Mapping[str, Sequence[int]]) -> None:
    """Removes whole documents: key -> the ordinals that it has.

    Ordinal 0 is marked first and goes last, so that a document which comes back after a crash in
    here is never taken for whole, and leaves no row behind.
    """
    several = [key for key, ordinals in documents.items() if any(ordinals)]
    fields = row_fields(spec)
    for start in range(0, len(several), READ_ROWS):
        keys = several[start : start + READ_ROWS]
        found = store.get(name, [passage_key(key, 0) for key in keys], fields)
        marks = []
        for passage_id, stored in found.items():
            last = max(documents[key_of_passage(passage_id)])
            marks.append(_mark(row_of(passage_id, stored, spec), max(stored["passages"], last + 1)))
        if marks:
            store.upsert(name, marks)
    _delete_ordinals(store, name, documents)


def _mark(first: Row, passages: int) -> Row:
    return replace(first, doc_hash="", passages=passages)


def _delete_ordinals(store: Store, name: str, documents: Mapping[str, Sequence[int]]) -> None:
    later = [passage_key(key, o) for key, ordinals in documents.items() for o in ordinals if o]
    if later:
        store.delete(name, later)
    store.delete(name, [passage_key(key, 0) for key in documents])


def _upsert(store: Store, name: str, rows: Sequence[Row]) -> dict[str, str]:
    """Upserts; returns the documents' keys that the store refused, with its reasons."""
    refused: dict[str, str] = {}
    while rows:
        try:
            store.upsert(name, rows)
            break
        except RowRefusedError as error:
            culprits = {key_of_passage(p) for p in error.passage_ids} & {
                key_of_passage(row.passage_id) for row in rows
            }
            if not culprits:
                raise
            reasons = {key_of_passage(p): why for p, why in error.reasons.items()}
            refused |= {key: reasons.get(key, str(error)) for key in culprits}
            rows = [row for row in rows if key_of_passage(row.passage_id) not in culprits]
    return refused


# ------------------------------------------------------------ rows as read, rows to write


def row_fields(spec: CollectionSpec) -> list[str]:
    """The fields that a whole row is made of."""
    base = ["doc_id", "ordinal", "source", "doc_hash", "passages", "title", "text", "metadata"]
    return [*base, *spec.fields, *vector_fields(spec)]


def vector_fields(spec: CollectionSpec) -> list[str]:
    return ["dense", "lexical"] if spec.sparse == "lexical" else ["dense"]


def row_of(passage_id: str, stored: StoredRow, spec: CollectionSpec) -> Row:
    """A row read with `row_fields`, ready to be written back."""
    sparse: SparseVector | None = stored["lexical"] if spec.sparse == "lexical" else None
    return Row(
        passage_id=passage_id,
        doc_id=stored["doc_id"],
        ordinal=stored["ordinal"],
        source=stored["source"],
        doc_hash=stored["doc_hash"],
        passages=stored["passages"],
        title=stored["title"],
        text=stored["text"],
        metadata=stored["metadata"],
        fields={field: stored[field] for field in spec.fields},
        dense=stored["dense"],
        sparse=sparse,
    )
