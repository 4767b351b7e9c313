"""Drops what a leg finds if it lacks a phrase of the query or has a word that the query excludes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from m3index.search.words import ParsedQuery, PlainText, Wording
from m3index.store.base import Store, StoredRow
from m3index.types import JOINED, Candidate, key_of_passage, passage_key
from m3index.wording import many

MOST_CHECKED = 1_000
"""The number of passages of a leg that are looked through for a query with phrases or exclusions, unless a
greater depth is asked for."""

MOST_READ = 10_000
"""The number of further passages of the found documents that are read for exclusions."""

_FIELDS = (*JOINED, "passages")


@dataclass(slots=True)
class Counts:
    """What was looked at: documents, or passages if those are the hits.

    found: all of them. phrased: those with all phrases. excluded: those of them that have an excluded word.
    is_partial: whether a leg had more than was looked through. is_unread: whether documents were too long to
    be read whole.
    """

    found: set[str] = field(default_factory=set)
    phrased: set[str] = field(default_factory=set)
    excluded: set[str] = field(default_factory=set)
    is_partial: bool = False
    is_unread: bool = False


class WordFilter:
    """The phrases and exclusions of one query in one collection. All legs share it, in their threads.

    A passage has a phrase if its text or the title has it. A document has an excluded word if its title or
    any of its passages has it; with passages as hits, each passage is judged by itself.
    """

    def __init__(self, store: Store, collection: str, query: ParsedQuery, *, passages: bool) -> None:
        self.counts = Counts()
        self._store, self._collection, self._passages = store, collection, passages
        self._phrases = [Wording(phrase) for phrase in query.phrases]
        self._excluded = [Wording(words) for words in query.excluded]
        self._is_phrased: dict[str, bool] = {}
        self._is_excluded: dict[str, bool] = {}
        self._whole: set[str] = set()
        self._read = 0
        self._lock = threading.Lock()

    def most(self, depth: int) -> int:
        """The number of passages of a leg to look through."""
        return max(MOST_CHECKED, depth)

    def keep(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that meet the query, in order. Raises StoreError."""
        with self._lock:
            self._look_at([c.passage_id for c in candidates if c.passage_id not in self._is_phrased])
            return [c for c in candidates if self._passes(c.passage_id)]

    def leave_rest(self) -> None:
        """Called by a leg that has more passages than are looked through."""
        self.counts.is_partial = True

    def _passes(self, passage: str) -> bool:
        return self._is_phrased[passage] and not self._is_excluded[self._judged(passage)]

    def _judged(self, passage: str) -> str:
        return passage if self._passages else key_of_passage(passage)

    def _look_at(self, passages: Sequence[str]) -> None:
        rows = self._store.get(self._collection, passages, _FIELDS) if passages else {}
        to_read: dict[str, StoredRow] = {}
        for passage in passages:
            row = rows.get(passage)
            if row is None:  # it was just removed
                self._is_phrased[passage] = False
                continue
            judged = self._judged(passage)
            self.counts.found.add(judged)
            self._is_phrased[passage] = not self.missing(row)
            if self._is_phrased[passage]:
                self.counts.phrased.add(judged)
                self._judge(judged, row)
                if self._excluded and not self._passages and judged not in self._whole:
                    to_read[passage] = row
        self._read_whole({p: row for p, row in to_read.items() if not self._is_excluded[self._judged(p)]})

    def _judge(self, judged: str, row: StoredRow) -> None:
        self._is_excluded[judged] = self._is_excluded.get(judged, False) or bool(self.present([row]))
        if self._is_excluded[judged]:
            self.counts.excluded.add(judged)

    def _read_whole(self, found: Mapping[str, StoredRow]) -> None:
        """Looks for exclusions in the other passages of these documents."""
        others: dict[str, str] = {}
        for passage, row in found.items():
            key, count = key_of_passage(passage), int(row["passages"])
            if key in self._whole:  # by another passage of it
                continue
            if self._read + count - 1 > MOST_READ:
                self.counts.is_unread = True
                continue
            self._read += count - 1
            self._whole.add(key)
            own = (passage_key(key, ordinal) for ordinal in range(count))
            others |= {other: key for other in own if other != passage}
        rows = self._store.get(self._collection, list(others), JOINED) if others else {}
        for passage, row in rows.items():
            self._judge(others[passage], row)

    # -- one row, or some

    def missing(self, row: StoredRow) -> list[str]:
        """The phrases that a passage does not have."""
        if not self._phrases:
            return []
        texts = _texts(row)
        return [p.said for p in self._phrases if not any(p.is_in(text) for text in texts)]

    def present(self, rows: Iterable[StoredRow]) -> list[str]:
        """The exclusions that one of the passages has."""
        if not self._excluded:
            return []
        texts = [text for row in rows for text in _texts(row)]
        return [e.said for e in self._excluded if any(e.is_in(text) for text in texts)]


def _texts(row: StoredRow) -> list[PlainText]:
    return [PlainText(str(row[field])) for field in JOINED]


def notes(query: ParsedQuery, filters: Sequence[WordFilter], *, passages: bool, is_short: bool) -> list[str]:
    """What the phrases and exclusions of a query did. filters: of its collections. is_short: whether there
    are fewer hits than were asked for."""
    what = "passage" if passages else "document"
    found, phrased, excluded = (
        sum(len(getattr(f.counts, name)) for f in filters) for name in ("found", "phrased", "excluded")
    )
    said: list[str] = []
    phrases = "phrase" if len(query.phrases) == 1 else "phrases"
    if query.phrases:
        said.append(f"With the {phrases} {quoted(query.phrases)}: {phrased:,} of {many(found, what)} found.")
    if query.excluded:
        of = f"{many(phrased, what)} with the {phrases}" if query.phrases else f"{many(found, what)} found"
        said.append(f"Left out for {quoted(query.excluded, 'or')}: {excluded:,} of {of}.")
    if is_short and any(f.counts.is_partial for f in filters):
        said.append(
            f"For phrases and exclusions, only the first {many(MOST_CHECKED, 'passage')} of a leg, or as "
            "many as the depth, are looked through. There can be more hits: raise the depth."
        )
    if any(f.counts.is_unread for f in filters):
        said.append(
            f"For exclusions, at most {many(MOST_READ, 'further passage')} of the found documents are read. "
            "Of some documents, only the passages that were found were looked through."
        )
    return said


def quoted(texts: Sequence[str], joined: str = "and") -> str:
    *first, last = (f'"{text}"' for text in texts)
    return f"{', '.join(first)} {joined} {last}" if first else last
