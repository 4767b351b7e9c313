"""Synonyms from a file in the format of Solr and Elasticsearch, for the sparse leg of a query.

# a comment
bee, honeybee, apis mellifera      each of them stands for the others
usa => united states, america      a query with the left side gets the right side, not the reverse
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from m3index.errors import UsageError
from m3index.store.analyzer import sequence

MOST_BYTES = 16 * 2**20
"""The size up to which a file of synonyms is read."""

_COMMA = re.compile(r"(?<!\\),")
_ARROW = re.compile(r"(?<!\\)=>")
_ESCAPED = re.compile(r"\\(.)")

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expansion:
    """A text with its synonyms. found: for each place with synonyms, its term and what is added for it."""

    original: str
    found: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def text(self) -> str:
        """The text, and after it the synonyms."""
        added = dict.fromkeys(term for _, others in self.found for term in others)
        return " ".join([self.original, *added])

    @property
    def notes(self) -> list[str]:
        return [
            f'Synonyms of "{term}", for the sparse leg: {", ".join(others)}.'
            for term, others in dict(self.found).items()
        ]


@dataclass(frozen=True)
class Synonyms:
    """added: by a sequence of folded words, the term as the file has it, and what a query with it gets."""

    added: Mapping[Key, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.added), default=0)

    def expand(self, text: str) -> Expansion:
        """Finds the longest sequences of words that have synonyms, from left to right."""
        if not self.added:
            return Expansion(text)
        words = sequence(text)
        found: list[tuple[str, tuple[str, ...]]] = []
        start = 0
        while start < len(words):
            for length in range(min(self._longest, len(words) - start), 0, -1):
                key = tuple(words[start : start + length])
                if key in self.added:
                    found.append(self.added[key])
                    start += length
                    break
            else:
                start += 1
        return Expansion(text, tuple(found))


NONE = Synonyms()


def read_synonyms(path: str) -> Synonyms:
    """Reads a file. Raises UsageError, with the line, if it cannot be read."""
    try:
        with Path(path).open("rb") as source:
            content = source.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The synonyms {path} cannot be read: {error.strerror}.") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"The synonyms {path} are larger than {MOST_BYTES >> 20} MiB.")
    lines: list[str] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise UsageError(f"{path}, line {number}: it is not UTF-8.") from None
    return parse_synonyms(lines, path)


def parse_synonyms(lines: Iterable[str], name: str = "synonyms") -> Synonyms:
    """Parses the lines of a file. Raises UsageError."""
    names: dict[Key, str] = {}
    added: dict[Key, dict[str, None]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            left, right = _rule(line)
        except ValueError as error:
            raise UsageError(f"{name}, line {number}: {error} Write a, b, c or a, b => c.") from None
        for term, key in left.items():
            names.setdefault(key, term)
            if others := {other: None for other, its_key in right.items() if its_key != key}:
                added.setdefault(key, {}).update(others)
    return Synonyms({key: (names[key], tuple(others)) for key, others in added.items()})


def _rule(line: str) -> tuple[dict[str, Key], dict[str, Key]]:
    """The terms of the sides of a line, with their words. Raises ValueError."""
    sides = [_terms(side) for side in _ARROW.split(line)]
    if len(sides) > 2:
        raise ValueError("it has more than one =>.")
    if len(sides) == 1 and len(sides[0]) == 1:
        raise ValueError("it has a single term.")
    return sides[0], sides[-1]


def _terms(side: str) -> dict[str, Key]:
    terms: dict[str, Key] = {}
    for part in _COMMA.split(side):
        term = " ".join(_ESCAPED.sub(r"\1", part).split())
        key = tuple(sequence(term))
        if not key:
            raise ValueError("a term is empty or has no letters or digits.")
        terms[term] = key
    return terms
