"""Writes and removes documents in an order that makes a crash harmless.

At any moment, a document has either no rows, or a row with ordinal 0 whose `passages` is at least the number
of its rows and whose `doc_hash` is empty unless the rows are exactly those of the document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeAlias

from m3index.errors import RowRefusedError
from m3index.schema import CollectionSpec
from m3index.store.base import Store
from m3index.types import AnyRow, Row, RowUpdate, key_of_passage, passage_key

READ_ROWS = 500


@dataclass(frozen=True, slots=True)
class DocumentWrite(Generic[AnyRow]):
    """All rows of one document to write, or the updates of all of them, starting with ordinal 0.

    stored: the number of ordinals that the store may hold now; 0 for a new document.
    """

    key: str
    rows: Sequence[AnyRow]
    stored: int

    @property
    def is_single(self) -> bool:
        """Whether the document has one passage and had at most one, so that a single call is enough."""
        return len(self.rows) == 1 and self.stored <= 1


AnyWrite: TypeAlias = DocumentWrite[Row] | DocumentWrite[RowUpdate]


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that the store refused. removed: its previous rows are removed as well."""

    key: str
    reason: str
    removed: bool


def write(store: Store, name: str, writes: Sequence[AnyWrite]) -> list[Refused]:
    """Writes whole documents; returns those that the store refused. The others are written.

    A document refused at its first row is unchanged. A document refused later is removed, because half of it
    would look complete. Raises StoreError.
    """
    refused: dict[str, Refused] = {}

    def send(rows: Iterable[Row | RowUpdate], *, begun: bool) -> None:
        pending = [row for row in rows if key_of_passage(row.passage_id) not in refused]
        whole = [row for row in pending if isinstance(row, Row)]
        updates = [row for row in pending if isinstance(row, RowUpdate)]
        reasons = _send(partial(store.upsert, name), whole) | _send(partial(store.update, name), updates)
        for key, reason in reasons.items():
            refused[key] = Refused(key, reason, removed=begun)

    larger = [w for w in writes if not w.is_single]
    send((_mark(w.rows[0], max(w.stored, len(w.rows))) for w in larger), begun=False)
    send((row for w in larger for row in w.rows[1:]), begun=True)
    stale = [
        passage_key(w.key, ordinal)
        for w in larger
        if w.key not in refused
        for ordinal in range(len(w.rows), w.stored)
    ]
    if stale:
        store.delete(name, stale)
    send((w.rows[0] for w in larger), begun=True)
    send((w.rows[0] for w in writes if w.is_single), begun=False)
    broken = [w for w in larger if w.key in refused and refused[w.key].removed]
    if broken:
        _delete_ordinals(store, name, {w.key: range(max(w.stored, len(w.rows))) for w in broken})
    return list(refused.values())


def remove(store: Store, name: str, spec: CollectionSpec, documents: Mapping[str, Sequence[int]]) -> None:
    """Removes whole documents, given as a mapping of keys to stored ordinals. Raises StoreError.

    Ordinal 0 is marked first and deleted last, so that after a crash the document is never taken for complete
    and no row is left behind.
    """
    mark(store, name, spec, {key: max(o) + 1 for key, o in documents.items() if any(o)})
    _delete_ordinals(store, name, documents)


def mark(store: Store, name: str, spec: CollectionSpec, documents: Mapping[str, int]) -> None:
    """Marks stored documents as unfinished, so that the next run takes them for changed. Raises StoreError.

    documents: the number of ordinals that the store may hold, by key.
    """
    keys, fields = list(documents), ["passages", "metadata", *spec.fields]
    for start in range(0, len(keys), READ_ROWS):
        first_ids = [passage_key(key, 0) for key in keys[start : start + READ_ROWS]]
        marks = [
            RowUpdate(
                passage_id,
                doc_hash="",
                passages=max(stored["passages"], documents[key_of_passage(passage_id)]),
                metadata=stored["metadata"],
                fields={field: stored[field] for field in spec.fields},
            )
            for passage_id, stored in store.get(name, first_ids, fields).items()
        ]
        if marks:
            _update_present(store, name, marks)


def _update_present(store: Store, name: str, updates: Sequence[RowUpdate]) -> None:
    """Updates rows, but for those that another run has removed since they were read: they need no mark."""
    try:
        store.update(name, updates)
    except RowRefusedError as error:
        if store.get(name, list(error.passage_ids), []):
            raise


def _mark(first: Row | RowUpdate, passages: int) -> Row | RowUpdate:
    """The first row of a document, marked as unfinished."""
    return replace(first, doc_hash="", passages=passages)


def _delete_ordinals(store: Store, name: str, documents: Mapping[str, Sequence[int]]) -> None:
    later = [passage_key(key, o) for key, ordinals in documents.items() for o in ordinals if o]
    if later:
        store.delete(name, later)
    store.delete(name, [passage_key(key, 0) for key in documents])


def _send(call: Callable[[Sequence[AnyRow]], None], rows: Sequence[AnyRow]) -> dict[str, str]:
    """Writes rows by a call of the store; returns the keys of the refused documents with its reasons."""
    refused: dict[str, str] = {}
    while rows:
        try:
            call(rows)
            break
        except RowRefusedError as error:
            keys = {key_of_passage(p) for p in error.passage_ids} & {
                key_of_passage(row.passage_id) for row in rows
            }
            if not keys:
                raise
            reasons = {key_of_passage(p): reason for p, reason in error.reasons.items()}
            refused |= {key: reasons.get(key, str(error)) for key in keys}
            rows = [row for row in rows if key_of_passage(row.passage_id) not in keys]
    return refused
