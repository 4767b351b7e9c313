"""The part of a text that shows best why it was found, and what to highlight in it. Plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from m3index.search.terms import Term, terms

WIDTH = 240
ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Snippet:
    """text: one line, with an ellipsis where the passage goes on. spans: the characters [start, end)
    of `text` that stand in the query too, ascending, not overlapping."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()


def snippet(text: str, query: str, width: int = WIDTH) -> Snippet:
    """At most `width` characters of the text (and the ellipses) around the query's terms."""
    line = " ".join(text.split())
    wanted = {term.text for term in terms(query)}
    found = [term for term in terms(line) if term.text in wanted]
    start, end = _window(line, found, width)
    before = ELLIPSIS if start > 0 else ""
    after = ELLIPSIS if end < len(line) else ""
    shift = len(before) - start
    spans = [(t.start + shift, t.end + shift) for t in found if start <= t.start and t.end <= end]
    return Snippet(before + line[start:end] + after, tuple(_merge(spans)))


def _window(line: str, found: Sequence[Term], width: int) -> tuple[int, int]:
    """The stretch with the most distinct terms, each counted less the more often the text has it."""
    if len(line) <= width:
        return 0, len(line)
    often = Counter(term.text for term in found)
    best, first, last = 0.0, 0, 0
    for i, term in enumerate(found):
        seen: dict[str, float] = {}
        end = term.end
        for other in found[i:]:
            if other.end - term.start > width:
                break
            seen[other.text] = 1 / often[other.text]
            end = other.end
        value = sum(seen.values())
        if value > best:
            best, first, last = value, term.start, end
    start = max(0, min(first - (width - (last - first)) // 2, len(line) - width))
    return _at_spaces(line, start, start + width, first, last)


def _at_spaces(line: str, start: int, end: int, first: int, last: int) -> tuple[int, int]:
    """Moves the ends inwards to a space within 20 characters, never into [first, last)."""
    if start > 0 and (space := line.find(" ", start, min(start + 20, first))) >= 0:
        start = space + 1
    if end < len(line) and (space := line.rfind(" ", max(end - 20, last), end)) >= 0:
        end = space
    return start, end


def _merge(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins spans that overlap or touch (neighbouring bigrams)."""
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
