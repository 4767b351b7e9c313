"""Vectors that a run keeps: those of stored passages that the encoder would see again, word for word.

A passage of a changed document is encoded only if no row has the same input: the same title, breadcrumb and
text. The model need not be compared, because all rows of a collection are of one vector space. Text and
vectors of a row are always written together, so that its vectors are those of its own text, even where a
crash left half a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from m3index.index.plan import Change, DocumentChange
from m3index.index.write import READ_ROWS
from m3index.schema import CollectionSpec
from m3index.store.base import Store, StoredRow
from m3index.store.filter import All, Compare
from m3index.store.rows import vector_fields
from m3index.types import JOINED, Passage, join_title, joined, key_of_passage, passage_key

MOST_ROWS = 8_000
"""The maximum number of rows whose vectors are held for the documents of one window."""

LISTED_PER_SECOND = 10_000.0
"""How many rows a store lists, about."""
CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True)
class KeptVectors:
    """The stored rows that the changed documents of one window may keep, by a digest of their input."""

    rows: dict[bytes, StoredRow] = field(default_factory=dict)

    def of(self, title: str, passages: Sequence[Passage]) -> dict[int, StoredRow]:
        """The rows with the same input, by the ordinal of the passage."""
        if not self.rows:
            return {}
        found: dict[int, StoredRow] = {}
        for passage in passages:
            row = self.rows.get(_digest(join_title(title, passage.breadcrumb, passage.text)))
            if row is not None:
                found[passage.ordinal] = row
        return found


class StoredVectors:
    """Reads the vectors that a run may keep.

    name: the concrete collection. source: the documents that a moved one may have been. rate: of the encoder,
    in tokens per second, as the last run measured it; 0 if it is not known.
    """

    def __init__(self, store: Store, name: str, spec: CollectionSpec, source: str, rate: float) -> None:
        self._store, self._name, self._source = store, name, source
        self._fields = [*JOINED, *vector_fields(spec)]
        self._rate = rate or 1_000.0
        self._rows: int | None = None  # before the run
        self._former: _Former | None = None

    def of(self, planned: Sequence[DocumentChange]) -> KeptVectors:
        """The rows of these documents, and of those that new ones may have been before they were moved."""
        ids = [
            passage_key(p.key, ordinal)
            for p in planned
            if p.change is Change.UPDATED
            for ordinal in range(p.stored)
        ]
        ids += self._moved([p for p in planned if p.change is Change.ADDED])
        kept = KeptVectors()
        for start in range(0, min(len(ids), MOST_ROWS), READ_ROWS):
            part = ids[start : min(start + READ_ROWS, MOST_ROWS)]
            for row in self._store.get(self._name, part, self._fields).values():
                kept.rows.setdefault(_digest(joined(row)), row)
        return kept

    def _moved(self, added: Sequence[DocumentChange]) -> list[str]:
        """The keys of the rows of stored documents with the content of new ones.

        To list the documents takes a while, so it is done only where there is more to save.
        """
        if not added:
            return []
        if self._rows is None:
            self._rows = self._store.count(self._name)
        if self._former is None:
            tokens = sum(len(p.document.text) for p in added) / CHARACTERS_PER_TOKEN
            if not self._rows or tokens / self._rate < self._rows / LISTED_PER_SECOND:
                return []
            where = All((Compare("source", "==", self._source), Compare("ordinal", "==", 0)))
            self._former = _Former(self._store.scan(self._name, where, ["doc_hash", "passages"]))
        return [id_ for p in added for id_ in self._former.rows_of(p.doc_hash)]


_RECORD = np.dtype([("content", ">u8"), ("high", ">u8"), ("low", ">u8"), ("passages", ">u4")])


class _Former:
    """The stored documents by their content, in 28 bytes for each.

    Eight bytes of the digest are enough: a row that is read in vain has another input, and is not kept.
    """

    def __init__(self, first_rows: Iterable[StoredRow]) -> None:
        records = bytearray()
        for row in first_rows:
            if row["doc_hash"]:
                records += bytes.fromhex(row["doc_hash"][:16] + key_of_passage(row["passage_id"]))
                records += min(row["passages"], MOST_ROWS).to_bytes(4, "big")
        self._records = np.sort(np.frombuffer(bytes(records), _RECORD), order="content")
        self._contents = self._records["content"].astype(np.uint64)

    def rows_of(self, doc_hash: str) -> Iterator[str]:
        """The keys of the rows of a document with this content."""
        content = np.uint64(int(doc_hash[:16], 16))
        at = int(self._contents.searchsorted(content))
        if at < len(self._contents) and self._contents[at] == content:
            record = self._records[at]
            key = f"{int(record['high']):016x}{int(record['low']):016x}"
            yield from (passage_key(key, ordinal) for ordinal in range(int(record["passages"])))


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
