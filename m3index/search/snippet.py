"""The part of a text that shows best why it was found, and what to highlight in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from m3index.search.stop_words import stop_words
from m3index.search.terms import Term, terms
from m3index.store.analyzer import stem

WIDTH = 240
ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Snippet:
    """text: one line, with an ellipsis where the passage continues. spans: the ranges [start, end) of
    `text` that match the query, ascending and without overlaps."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()


def snippet(text: str, query: str, width: int = WIDTH) -> Snippet:
    """At most `width` characters of the text, plus ellipses, around the terms of the query. Stop words count
    only if the query has nothing else."""
    line = " ".join(text.split())
    asked = terms(query)
    telling = [term for term in asked if term.text not in stop_words()]
    query_terms = {_form(term) for term in telling or asked}
    matches = [term for term in terms(line) if _form(term) in query_terms]
    start, end = _window(line, matches, width)
    before = ELLIPSIS if start > 0 else ""
    after = ELLIPSIS if end < len(line) else ""
    shift = len(before) - start
    spans = [(t.start + shift, t.end + shift) for t in matches if start <= t.start and t.end <= end]
    return Snippet(before + line[start:end] + after, tuple(_merge(spans)))


def _form(term: Term) -> str:
    """What the forms of a word have in common."""
    return stem(term.text)


def _window(line: str, matches: Sequence[Term], width: int) -> tuple[int, int]:
    """The range with the most distinct terms; a term weighs less the more often the text has it."""
    if len(line) <= width:
        return 0, len(line)
    counts = Counter(map(_form, matches))
    best, first, last = 0.0, 0, 0
    for i, term in enumerate(matches):
        seen: dict[str, float] = {}
        end = term.end
        for other in matches[i:]:
            if other.end - term.start > width:
                break
            seen[_form(other)] = 1 / counts[_form(other)]
            end = other.end
        value = sum(seen.values())
        if value > best:
            best, first, last = value, term.start, end
    start = max(0, min(first - (width - (last - first)) // 2, len(line) - width))
    return _at_spaces(line, start, start + width, first, last)


def _at_spaces(line: str, start: int, end: int, first: int, last: int) -> tuple[int, int]:
    """Moves both ends inwards to a space within 20 characters, but never into [first, last)."""
    if start > 0 and (space := line.find(" ", start, min(start + 20, first))) >= 0:
        start = space + 1
    if end < len(line) and (space := line.rfind(" ", max(end - 20, last), end)) >= 0:
        end = space
    return start, end


def _merge(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins spans that overlap or touch (adjacent bigrams)."""
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
