"""Compiles replacements of characters to SentencePiece's `precompiled_charsmap`, which tokenizer.json holds.

The map is a double-array trie over UTF-8 (the layout of darts-clone), preceded by its size, and followed by
the replacements, each ended by a zero byte. Compiled here because SentencePiece compiles only its own rules,
and because equal rules must give equal bytes on every machine: the identity of an encoder depends on them.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST = 5
"""The greatest number of bytes of a sequence that `tokenizers` looks up as a whole."""

_BLOCK = 256  # a node and its children are in one block, because their places differ by one byte
_OPEN_BLOCKS = 8  # how many blocks are searched for room
_HAS_VALUE, _IS_VALUE = 1 << 8, 1 << 31
_LOWER = [sum(1 << i for i in range(_BLOCK) if not i >> n & 1) for n in range(8)]
_DEPRECATED_MARKS = {"\u0300": "\u0340", "\u0301": "\u0341", "\u0313": "\u0343"}


def with_compositions(replacements: Mapping[str, str]) -> dict[str, str]:
    """Replacements of single characters, and those that compose a letter and its marks as NFKC does.

    Only of the Basic Multilingual Plane, where Unicode adds no more compositions, so that the result does not
    depend on Python's version of Unicode.
    """
    rules = dict(replacements)
    for code in (*range(0xD800), *range(0xE000, 0x10000)):
        character = chr(code)
        parts = unicodedata.normalize("NFD", character)
        composed = "".join(replacements.get(c, c) for c in unicodedata.normalize("NFKC", character))
        if len(parts) == 1 or composed == parts:
            continue
        written = [parts, *(parts.replace(mark, old) for mark, old in _DEPRECATED_MARKS.items())]
        for sequence in written:
            if len(sequence.encode()) <= LONGEST:
                rules[sequence] = composed
    return rules


def compiled(rules: Mapping[str, str]) -> bytes:
    """The map of these rules, none of them for an empty text or a zero byte."""
    texts, places = bytearray(), dict[str, int]()
    root = _Node()
    for written, text in sorted(rules.items()):
        if text not in places:
            places[text] = len(texts)
            texts += text.encode() + b"\0"
        node = root
        for byte in written.encode():
            node = node.children.setdefault(byte, _Node())
        node.value = places[text]
    units = _Units()
    units.add(root)
    return struct.pack("<I", 4 * len(units.units)) + units.to_bytes() + bytes(texts)


@dataclass(slots=True)
class _Node:
    value: int | None = None
    children: dict[int, _Node] = field(default_factory=dict)


class _Units:
    """The array of 32-bit units. The children of the node at `place` are at `base ^ byte`, and its value at
    `base`, where its unit holds `place ^ base`. No two nodes have the same base.

    Which places of a block are free, and which may still become a base, are the bits of two integers.
    """

    def __init__(self) -> None:
        self.units: list[int] = []
        self._free: list[int] = []
        self._bases: list[int] = []
        self._grow()
        self._free[0] ^= 1  # the root
        self._bases[0] ^= 1

    def to_bytes(self) -> bytes:
        """The array. Free places get a label that no node leads to, as SentencePiece demands."""
        units = self.units.copy()
        for block, (free, bases) in enumerate(zip(self._free, self._bases, strict=True)):
            unused = bases & ~free or bases
            base = (unused & -unused).bit_length() - 1
            for place in range(_BLOCK):
                if free >> place & 1:
                    units[block * _BLOCK + place] = base ^ place
        return struct.pack(f"<{len(units)}I", *units)

    def add(self, node: _Node, place: int = 0, label: int = 0) -> None:
        has_value = node.value is not None
        base = self._base([0] * has_value + sorted(node.children))
        self.units[place] = (place ^ base) << 10 | _HAS_VALUE * has_value | label
        if node.value is not None:
            self.units[base] = _IS_VALUE | node.value
        for byte, child in sorted(node.children.items()):
            self.add(child, base ^ byte, byte)

    def _base(self, labels: list[int]) -> int:
        """Takes a base for a node with these labels, and their places."""
        block = max(0, len(self._free) - _OPEN_BLOCKS)
        while not (fits := self._fits(block, labels)):
            block += 1
            if block == len(self._free):
                self._grow()
        lowest = fits & -fits
        self._bases[block] ^= lowest
        base = lowest.bit_length() - 1
        for byte in labels:
            self._free[block] ^= 1 << (base ^ byte)
        return block * _BLOCK + base

    def _fits(self, block: int, labels: list[int]) -> int:
        """The bases of a block whose places for these labels are free, as bits."""
        fits = self._bases[block]
        for byte in labels:
            fits &= _exchanged(self._free[block], byte)
        return fits

    def _grow(self) -> None:
        self.units += [0] * _BLOCK
        self._free.append((1 << _BLOCK) - 1)
        self._bases.append((1 << _BLOCK) - 1)


def _exchanged(bits: int, byte: int) -> int:
    """Bit i of the result is bit i ^ byte."""
    for n, lower in enumerate(_LOWER):
        if byte >> n & 1:
            bits = (bits & lower) << (1 << n) | bits >> (1 << n) & lower
    return bits
