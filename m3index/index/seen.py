"""The 128-bit keys of the documents seen in a pass over the corpus, and ids spelt in several ways."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

from m3index.wording import many

_WIDTH = 16
_EMPTY = bytes(_WIDTH)


class SeenKeys:
    """A set of 16-byte digests in one byte array with open addressing.

    Takes 24 to 48 bytes per key (a Python set of bytes takes about 110), and twice that while the table
    grows.
    """

    def __init__(self) -> None:
        self._slots = 1024
        self._table = bytearray(_WIDTH * self._slots)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def __contains__(self, key: bytes) -> bool:
        at = self._find(key)
        return self._table[at : at + _WIDTH] == key

    def add(self, key: bytes) -> bool:
        """Adds a key; returns False if it was already there."""
        at = self._find(key)
        if self._table[at : at + _WIDTH] == key:
            return False
        if 3 * self._used >= 2 * self._slots:
            self._grow()
            at = self._find(key)
        self._table[at : at + _WIDTH] = key
        self._used += 1
        return True

    def __iter__(self) -> Iterator[bytes]:
        """Yields the keys in no particular order; do not change the set while iterating."""
        for at in range(0, len(self._table), _WIDTH):
            key = bytes(self._table[at : at + _WIDTH])
            if key != _EMPTY:
                yield key

    @property
    def nbytes(self) -> int:
        return len(self._table)

    def _find(self, key: bytes) -> int:
        """The position of the key or of the empty slot for it. Keys are digests, so their first bytes serve
        as the hash."""
        table, end = self._table, len(self._table)
        at = int.from_bytes(key[:8], "little") % self._slots * _WIDTH
        while (slot := table[at : at + _WIDTH]) != _EMPTY and slot != key:
            at = (at + _WIDTH) % end
        return at

    def _grow(self) -> None:
        old = self._table
        self._slots *= 2
        self._table = bytearray(_WIDTH * self._slots)
        for start in range(0, len(old), _WIDTH):
            key = bytes(old[start : start + _WIDTH])
            if key != _EMPTY:
                at = self._find(key)
                self._table[at : at + _WIDTH] = key


def normal_form(doc_id: str) -> str:
    """The id as people read it: Unicode NFC, without surrounding white space and a leading `./`."""
    return unicodedata.normalize("NFC", doc_id).strip().removeprefix("./")


class Spellings:
    """Finds documents whose ids differ only in spelling: they are separate documents, but look like one.

    Most ids are in normal form and cost nothing but a look-up in `seen`, where they are kept anyway; of the
    others, the digest of the normal form is kept, and a bounded number of spellings as examples.
    """

    EXAMPLES = 2
    KEPT = 1000

    def __init__(self, seen: SeenKeys, digest: Callable[[str], bytes]) -> None:
        """seen: the digests of all ids of the pass, added before `note`."""
        self._seen, self._digest = seen, digest
        self._unusual = SeenKeys()
        self._spelt: dict[str, str] = {}
        self.count = 0
        self.examples: list[tuple[str, str]] = []

    def note(self, doc_id: str) -> None:
        """Takes the id of a new document."""
        normal = normal_form(doc_id)
        if normal == doc_id:
            if len(self._unusual) and self._digest(doc_id) in self._unusual:
                self._found(doc_id, self._spelt.get(doc_id))
            return
        digest = self._digest(normal)
        if not self._unusual.add(digest):
            self._found(doc_id, self._spelt.get(normal))
        elif digest in self._seen:
            self._found(doc_id, normal)
        if len(self._spelt) < self.KEPT:
            self._spelt.setdefault(normal, doc_id)

    def _found(self, doc_id: str, other: str | None) -> None:
        self.count += 1
        if other is not None and len(self.examples) < self.EXAMPLES:
            self.examples.append((other, doc_id))

    @property
    def warning(self) -> str | None:
        """What people must know; None if there is nothing."""
        if not self.count:
            return None
        examples = ", ".join(f"{one!a} and {other!a}" for one, other in self.examples)
        return (
            f"{many(self.count, 'document has an id that differs', 'documents have ids that differ')} from "
            f"another one only in spelling: {examples}. Each counts as a separate document. Write an id the "
            "same way everywhere."
        )
