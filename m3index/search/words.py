"""Phrases and exclusions in a query, as in `"honey bees" -wasps`. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from m3index.errors import QueryError
from m3index.store.analyzer import UNSPACED, folded, sequence, without_accents

Syntax: TypeAlias = Literal["words", "plain"]
SYNTAXES: tuple[Syntax, ...] = get_args(Syntax)

MOST_CONDITIONS = 64
"""The number of phrases and exclusions of a query. Each is looked for in every text that is found."""

_CLOSED_BY = {'"': '"', "＂": "＂", "“": "”", "„": "“”", "”": "”", "«": "»", "»": "«»"}
_MARKS = "".join({*"".join(_CLOSED_BY), *"".join(_CLOSED_BY.values())})

# A mark that touches a word on its outside, as in 5" or צה"ל, quotes nothing. Words of unspaced scripts touch
# all marks.
_WORD = rf"[^\W{UNSPACED}]"
_QUOTED = "|".join(
    rf"{re.escape(mark)}[^{_MARKS}]+[{re.escape(closing)}]" for mark, closing in _CLOSED_BY.items()
)
_CONDITION = re.compile(
    rf"(?<!{_WORD})(?P<phrase>{_QUOTED})(?!{_WORD})"
    rf"|(?<!\S)[-－](?P<excluded>{_QUOTED})(?!{_WORD})"
    rf"|(?<!\S)[-－](?P<word>[^\W\d_][^\s{_MARKS}]*)"
)


@dataclass(frozen=True, slots=True)
class QueryPart:
    """A piece of a query. text: the phrase or the exclusion without its marks. written: as it is in the
    query."""

    kind: Literal["text", "phrase", "excluded"]
    text: str
    written: str


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A query with its phrases and exclusions. `str` gives it as it was written."""

    parts: tuple[QueryPart, ...]

    def __str__(self) -> str:
        return "".join(part.written for part in self.parts)

    @property
    def text(self) -> str:
        """What is searched for: the query without its exclusions and without the marks of its phrases."""
        if not self.has_conditions:
            return str(self)
        return " ".join("".join(part.text for part in self.parts if part.kind != "excluded").split())

    @property
    def phrases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.text for part in self.parts if part.kind == "phrase"))

    @property
    def excluded(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.text for part in self.parts if part.kind == "excluded"))

    @property
    def has_conditions(self) -> bool:
        return any(part.kind != "text" for part in self.parts)

    def without(self, phrases: Collection[str] = (), excluded: Collection[str] = ()) -> ParsedQuery:
        """The query with these phrases as mere text, and without these exclusions."""
        parts: list[QueryPart] = []
        for part in self.parts:
            if part.kind == "phrase" and part.text in phrases:
                parts.append(QueryPart("text", part.text, part.text))
            elif part.kind != "excluded" or part.text not in excluded:
                parts.append(part)
        return ParsedQuery(tuple(parts))


def parse(text: str, syntax: Syntax = "words") -> ParsedQuery:
    """Parses a query; with the syntax `plain`, all of it is text.

    A phrase stands in double quotes, straight or typographic. An exclusion is a minus before a letter or a
    phrase, at the start of a word. A mark without its counterpart, a hyphen inside a word and a minus before
    a digit are text. Raises QueryError for a query that only excludes, and for too many conditions.
    """
    if syntax == "plain":
        return ParsedQuery((QueryPart("text", text, text),))
    parts: list[QueryPart] = []
    end = 0
    for found in _CONDITION.finditer(text):
        if found["word"]:
            said = _without_punctuation(found["word"])
            stop = found.end() - len(found["word"]) + len(said)
        else:
            said, stop = (found["phrase"] or found["excluded"])[1:-1].strip(), found.end()
        if sequence(said):
            before = text[end : found.start()]
            parts.append(QueryPart("text", before, before))
            kind: Literal["phrase", "excluded"] = "phrase" if found["phrase"] else "excluded"
            parts.append(QueryPart(kind, said, text[found.start() : stop]))
            end = stop
    parts.append(QueryPart("text", text[end:], text[end:]))
    parsed = ParsedQuery(tuple(part for part in parts if part.written))
    if (count := sum(part.kind != "text" for part in parsed.parts)) > MOST_CONDITIONS:
        raise QueryError(
            f"The query has {count} phrases and exclusions, but at most {MOST_CONDITIONS} are possible. "
            "Leave some out, or search with the syntax plain, which takes all of it as text."
        )
    if parsed.has_conditions and not parsed.text:
        raise QueryError(
            "The query only excludes words. Add what to search for, or search with the syntax plain, which "
            "takes all of it as text."
        )
    return parsed


def _without_punctuation(word: str) -> str:
    """The word without the punctuation at its end."""
    while unicodedata.category(word[-1])[0] in "PS":
        word = word[:-1]
    return word


class PlainText:
    """A text as it is compared with phrases and exclusions, folded as for BM25 (store/analyzer.py). bare:
    without accents, character by character."""

    __slots__ = ("bare", "folded")

    def __init__(self, text: str) -> None:
        self.folded = folded(text)
        self.bare = without_accents(self.folded)


class Wording:
    """A phrase or an exclusion. A word without accents stands for itself with accents, too."""

    def __init__(self, said: str) -> None:
        self.said = said
        self._words = sequence(said)
        bare = [without_accents(word) for word in self._words]
        self._is_bare = bare == self._words
        self._first = bare[0]
        self._pattern = re.compile(_run_of(bare))

    def is_in(self, text: PlainText) -> bool:
        """Whether the text has these words one after the other."""
        if self._first not in text.bare:  # faster than any pattern
            return False
        found = self._pattern.search(text.bare)
        while found is not None:
            if self._is_bare or self._fits(text.folded[found.start() : found.end()]):
                return True
            found = self._pattern.search(text.bare, found.start() + 1)
        return False

    def _fits(self, run: str) -> bool:
        words = sequence(run)
        return len(words) == len(self._words) and all(
            wanted in (word, without_accents(word)) for wanted, word in zip(self._words, words, strict=True)
        )


def _run_of(words: Sequence[str]) -> str:
    """The pattern of words one after the other, as `sequence` divides a text into words."""
    spaced = [re.fullmatch(f"{_WORD}+", word) is not None for word in words]
    pattern = f"(?<!{_WORD})" if spaced[0] else ""
    for i, word in enumerate(words):
        if i:
            pattern += r"\W+" if spaced[i - 1] and spaced[i] else r"\W*"
        pattern += re.escape(word)
    return f"{pattern}(?!{_WORD})" if spaced[-1] else pattern
