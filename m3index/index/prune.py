"""What has left the corpus: found by listing the collection, removed only within the guard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from m3index.errors import UsageError
from m3index.index.plan import Corpus, Planner
from m3index.store.base import Store
from m3index.store.filter import Compare, Filter, combine

FLOOR = 10
_RECORD = np.dtype([("high", ">u8"), ("low", ">u8"), ("ordinal", ">u4")])


@dataclass(frozen=True, slots=True)
class MaxDelete:
    """How many documents a run may remove unasked: a number, or a share of those of its source
    in the collection (then never less than 10)."""

    count: int | None = None
    percent: float = 10.0

    @classmethod
    def parse(cls, text: str) -> MaxDelete:
        """`200` or `25%`. Raises UsageError."""
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*", text)
        if found and found[2] and float(found[1]) <= 100:
            return cls(percent=float(found[1]))
        if found and not found[2] and "." not in found[1]:
            return cls(count=int(found[1]))
        raise UsageError(
            f"--max-delete takes a number of documents or a share up to 100%: {text!r} is neither."
        )

    def refuses(self, documents: int, of: int) -> str:
        """Why so many documents, of those in the collection, may not go; empty where they may."""
        limit = max(FLOOR, int(of * self.percent / 100)) if self.count is None else self.count
        if documents <= limit:
            return ""
        return (
            f"of {of:,} documents at most {limit:,} are removed in one run. If they shall go, allow it "
            f"with --max-delete {documents}."
        )


def kept_because(documents: int, reason: str) -> str:
    return f"{documents:,} documents are not in the corpus and are kept all the same: {reason}"


class Listing:
    """All rows of a source (and tenant) in the collection, sorted out by what a pass over the corpus has met.

    rows_seen: of documents that the pass met (documents_seen: how many those are); rows_protected: of
    bad ones with an id. The rows of documents that it did not meet take 20 bytes each.
    """

    def __init__(self, store: Store, name: str, planner: Planner) -> None:
        self.rows_seen = self.documents_seen = self.rows_protected = 0
        unseen = bytearray()
        for row in store.scan(name, rows_of(planner), ["ordinal"]):
            key = bytes.fromhex(row["passage_id"].partition("-")[0])
            if key in planner.seen:
                self.rows_seen += 1
                self.documents_seen += row["ordinal"] == 0
            elif key in planner.protected:
                self.rows_protected += 1
            else:
                unseen += key + int(row["ordinal"]).to_bytes(4, "big")
        self._unseen = np.sort(np.frombuffer(bytes(unseen), _RECORD), order=["high", "low", "ordinal"])
        keys = self._unseen[["high", "low"]]
        self._starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)])

    @property
    def documents(self) -> int:
        """How many documents of the source the corpus has no more."""
        return len(self._starts)

    @property
    def rows_unseen(self) -> int:
        return len(self._unseen)

    def unseen(self, size: int = 500) -> Iterator[dict[str, list[int]]]:
        """Those documents, `size` at a time: key -> the ordinals there are."""
        ends = np.append(self._starts[1:], len(self._unseen))
        for at in range(0, len(self._starts), size):
            part: dict[str, list[int]] = {}
            for start, end in zip(self._starts[at : at + size], ends[at : at + size], strict=True):
                records = self._unseen[start:end]
                key = records[:1].tobytes()[:16].hex()
                part[key] = [int(ordinal) for ordinal in records["ordinal"]]
            yield part


def rows_of(planner: Planner) -> Filter | None:
    """The rows that a pass over the corpus is about."""
    tenant = planner.tenant.where if planner.tenant else None
    return combine(Compare("source", "==", planner.source), tenant)


def why_withheld(
    corpus: Corpus, planner: Planner, listing: Listing, *, added: int, guard: MaxDelete | None
) -> str:
    """The reason not to delete what the corpus has no more; empty where it may go.

    added: how many of the documents seen are new in this run, and so say nothing about the old ones.
    """
    if not listing.documents:
        return ""
    if corpus.read_errors:
        return f"{corpus.read_errors[0].place} could not be read to its end."
    if planner.unidentified:
        return f"{planner.unidentified:,} rows have no id, and could be any of them."
    if not corpus.complete:
        return "the corpus was not read to its end."
    if guard is None and not len(planner.seen) and not len(planner.protected):
        return "the corpus is empty. If it shall be, say so with --max-delete 100%."
    before = listing.documents_seen - added + listing.documents
    return (guard or MaxDelete()).refuses(listing.documents, before)
