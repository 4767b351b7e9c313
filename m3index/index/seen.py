"""The 128-bit keys of the documents seen in a pass over the corpus."""

from __future__ import annotations

from collections.abc import Iterator

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
