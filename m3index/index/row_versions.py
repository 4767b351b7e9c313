"""Finds documents whose rows disagree, in the listing of a sync that reads every row anyway.

Two runs that write at the same time, in spite of the lock, can leave rows of two versions of a document or
remove some of its rows. The first row alone does not show it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from m3index.index.seen import SeenKeys
from m3index.store.base import StoredRow

FIELDS = ("ordinal", "doc_hash", "passages")
"""The columns of a row that the comparison needs."""

_BUCKETS = 1 << 16


@dataclass(slots=True)
class StoredRows:
    """What is stored of a document.

    ordinals: the highest ordinal plus 1. rows: the number of rows. passages: as the first row has it, 0
    without one. hashes: of all rows.
    """

    ordinals: int = 0
    rows: int = 0
    passages: int = 0
    hashes: set[str] = field(default_factory=set)

    @property
    def is_lost(self) -> bool:
        """Whether rows of the only version are missing."""
        return len(self.hashes) == 1 and self.rows < self.passages


class RowVersions:
    """Whether each document has `passages` rows with the hash of its first row, in 512 KiB for all of them.

    A row adds a digest of its document and hash to a bucket, and a first row takes it away `passages` times.
    A bucket with a remainder holds a document whose rows disagree; a remainder of 0 in spite of it has a
    probability of 2**-64.
    """

    def __init__(self) -> None:
        self._buckets = array("Q", bytes(8 * _BUCKETS))

    def add(self, key: bytes, row: StoredRow) -> None:
        """Adds a row. key: the 16 bytes of its document."""
        times = 1 - row["passages"] if row["ordinal"] == 0 else 1
        if times:
            digest = blake2b(key + row["doc_hash"].encode(), digest_size=8).digest()
            at = self._bucket(key)
            self._buckets[at] = (self._buckets[at] + times * int.from_bytes(digest, "big")) % (1 << 64)

    @property
    def agree(self) -> bool:
        """Whether the rows of all documents agree."""
        return not any(self._buckets)

    def disagreeing(self, rows: Iterable[StoredRow], among: SeenKeys) -> Mapping[str, StoredRows]:
        """The documents whose rows disagree, by key, from a second listing of the rows.

        among: the documents to look at. A document that is marked as unfinished is not in the result: a run
        takes it for changed already.
        """
        found: dict[str, StoredRows] = {}
        unfinished: set[str] = set()
        for row in rows:
            key = row["passage_id"].partition("-")[0]
            digest = bytes.fromhex(key)
            if self._buckets[self._bucket(digest)] and digest in among:
                stored = found.setdefault(key, StoredRows())
                stored.rows += 1
                stored.ordinals = max(stored.ordinals, row["ordinal"] + 1)
                stored.hashes.add(row["doc_hash"])
                if row["ordinal"] == 0:
                    stored.passages = row["passages"]
                    if not row["doc_hash"]:
                        unfinished.add(key)
        return {
            key: stored
            for key, stored in found.items()
            if key not in unfinished
            and not (len(stored.hashes) == 1 and stored.rows == stored.ordinals == stored.passages)
        }

    @staticmethod
    def _bucket(key: bytes) -> int:
        return int.from_bytes(key[-4:], "big") % _BUCKETS
