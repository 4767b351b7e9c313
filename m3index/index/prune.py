"""Finds the documents that have left the corpus, and decides whether they may be removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from m3index.index.left_unread import left_unread
from m3index.index.options import MaxDelete
from m3index.index.plan import Corpus, Planner
from m3index.index.row_versions import FIELDS, RowVersions, StoredRows
from m3index.store.base import Store
from m3index.wording import many

_RECORD = np.dtype([("high", ">u8"), ("low", ">u8"), ("ordinal", ">u4")])


class UnseenRows:
    """The rows of a source (and tenant) whose documents a pass over the corpus did not see, at 20 bytes each.

    rows_seen, documents_seen: the rows and documents that it did see. rows_protected: the rows of documents
    that the corpus contains as rejected rows. disagreeing: the documents seen whose rows disagree.
    """

    def __init__(self, store: Store, name: str, planner: Planner) -> None:
        self._store, self._name, self._planner = store, name, planner
        self.rows_seen = self.documents_seen = self.rows_protected = 0
        unseen, versions = bytearray(), RowVersions()
        for row in store.scan(name, planner.rows, FIELDS):
            key = bytes.fromhex(row["passage_id"].partition("-")[0])
            if key in planner.seen:
                self.rows_seen += 1
                self.documents_seen += row["ordinal"] == 0
                versions.add(key, row)
            elif key in planner.protected:
                self.rows_protected += 1
            else:
                unseen += key + int(row["ordinal"]).to_bytes(4, "big")
        self._unseen = np.sort(np.frombuffer(bytes(unseen), _RECORD), order=["high", "low", "ordinal"])
        keys = self._unseen[["high", "low"]]
        self.disagreeing: Mapping[str, StoredRows] = {}
        if not versions.agree:
            again = store.scan(name, planner.rows, FIELDS)
            self.disagreeing = versions.disagreeing(again, planner.seen)
        self._starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)])

    @property
    def documents(self) -> int:
        """The number of documents that have left the corpus."""
        return len(self._starts)

    @property
    def rows(self) -> int:
        return len(self._unseen)

    def batches(self, size: int = 500) -> Iterator[dict[str, list[int]]]:
        """Yields those documents, `size` at a time, as a mapping of keys to stored ordinals."""
        ends = np.append(self._starts[1:], len(self._unseen))
        for first in range(0, len(self._starts), size):
            batch: dict[str, list[int]] = {}
            bounds = zip(self._starts[first : first + size], ends[first : first + size], strict=True)
            for start, end in bounds:
                records = self._unseen[start:end]
                key = records[:1].tobytes()[:16].hex()
                batch[key] = [int(ordinal) for ordinal in records["ordinal"]]
            yield batch

    def withheld_message(self, corpus: Corpus, guard: MaxDelete | None, *, added: int = 0) -> str:
        """Why these documents are not removed; empty if they may be. guard: None if it was not given.

        added: the number of documents seen that this run has added, which do not count as documents before.
        """
        if not self.documents:
            return ""
        before = self.documents_seen - added + self.documents
        reason = obstacle(self._store, self._name, self._planner, corpus, guard)
        return withheld_message(self.documents, before, guard, reason)


def withheld_message(documents: int, before: int, guard: MaxDelete | None, obstacle: str = "") -> str:
    """Why these documents are not removed; empty if they may be.

    before: the number of documents in the collection. obstacle: a reason other than the guard.
    """
    reason = obstacle or (guard or MaxDelete()).refusal(documents, before)
    if not reason:
        return ""
    missing = many(documents, "document is", "documents are")
    return f"{missing} missing from the corpus but {'is' if documents == 1 else 'are'} kept: {reason}"


def obstacle(store: Store, name: str, planner: Planner, corpus: Corpus, guard: MaxDelete | None) -> str:
    """Why this pass does not prove that a document has left the corpus; empty if it does."""
    if corpus.read_errors:
        return f"{corpus.read_errors[0].place} could not be read to the end."
    if planner.unidentified:
        rows = many(planner.unidentified, "row of the corpus has", "rows of the corpus have")
        return f"{rows} no id and could be any of them."
    if not corpus.complete:
        return "the corpus was not read to the end."
    if guard is not None and guard.takes_all:
        return ""
    if guard is None and not len(planner.seen) and not len(planner.protected):
        return f"the corpus is empty. {_INTENDED}"
    if left := left_unread(store, name, planner, corpus):
        return f"{left} gives no documents, but a file or folder of this name did before. {_INTENDED}"
    return ""


_INTENDED = "If this is intended, pass --max-delete 100%."
