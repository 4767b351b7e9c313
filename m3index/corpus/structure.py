"""One document -> passages along its own structure.

A section that fits is never divided. Small neighbours of one parent share a passage: they are joined, one
after the other, until they fill a part of it (`SMALL`). A section that does not fit is divided into its own
text and its subsections, and a text without subsections between its blocks: paragraphs, lists, rows of
tables. Code, and a row of a table, is cut only if it alone does not fit.

Where a long text is cut depends on the text around the cut alone, not on what stands before: of all places
of the best kind that come into question, the one whose neighbourhood has the smallest checksum. So an
insertion moves the cuts near it, and those after it soon fall on the places that they had before.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

from m3index.corpus.outline import SEPARATOR, Outline, outline, shortened
from m3index.corpus.windows import LINES, PLANNED, SENTENCES, SPACES, Head, Span, TokenCutter, Tokens
from m3index.schema import VARCHAR_BYTES

SMALL = 1 / 4
"""Sections are joined until they have this share of the tokens of a passage."""
LEAST = 0.6
"""A passage of a divided text has at least this share of the tokens of a full one."""
HEAD = 1 / 4
"""Title and breadcrumb take at most this share of a passage together."""
_AROUND = 24
"""How many characters before and after a cut decide for it."""
_ROW = re.compile(r"[ \t]*\|")
_MARGIN = 4
"""Tokens that are left free, because a part of a text can have a few more than it has in the whole."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the text that no passage crosses. section: the number of its heading; -1 for the document."""

    start: int
    end: int
    section: int


class StructureCutter(TokenCutter):
    """Plans the windows of each stretch."""

    outline: Outline
    _stretches: list[Stretch]

    @property
    def breadcrumbs(self) -> list[str]:
        self.outline = outline(self.text, self.format)
        self._sections = _Breadcrumbs(self.outline, self.title)
        return self._sections.unique

    def measure(self, heads: Sequence[Tokens]) -> None:
        super().measure(heads)
        if self.problem:
            return
        of = {
            breadcrumb: self._measured(breadcrumb, tokens)
            for breadcrumb, tokens in zip(self._sections.unique, heads, strict=True)
        }
        most = self.size - self.tokenizer.reserve
        self._heads = [
            next((of[b] for b in candidates if of[b].room >= (1 - HEAD) * most), self._head)
            for candidates in self._sections.breadcrumbs
        ]
        self._stretches = list(self._divided())
        self._at = 0

    def head_of(self, section: int) -> Head:
        return self._head if section < 0 else self._heads[section]

    def room(self, section: int) -> int:
        room = self.head_of(section).room
        return max(room - min(_MARGIN, room // 8), 1)

    # -- sections -> stretches

    def _divided(self) -> Iterator[Stretch]:
        headings = self.outline.headings
        starts = [heading.start for heading in headings] + [len(self.text)]
        yield from self._within(-1, 0, 0, len(headings), starts)

    def _within(
        self, section: int, begin: int, first: int, last: int, starts: Sequence[int]
    ) -> Iterator[Stretch]:
        """The stretches of a section that does not fit. begin: where its own text starts. first, last: the
        headings inside it."""
        group: _Joined | None = None
        small = SMALL * self.room(section)
        for part in self._parts(section, begin, first, last, starts):
            tokens = self._tokens(part.start, part.end)
            fits = tokens <= self.room(part.section)
            start = part.start
            if group is not None and fits and group.tokens < small:
                joined = part.section if group.is_heading else section
                if self._tokens(group.start, part.end) <= self.room(joined):
                    group = _Joined(group.start, part.end, group.tokens + tokens, joined)
                    continue
            if group is not None and group.is_heading and not fits:
                start = group.start
            elif group is not None:
                yield Stretch(group.start, group.end, group.section)
            group = None
            if fits:
                group = _Joined(start, part.end, tokens, part.section, part.is_own and self._is_heading(part))
            elif part.is_own:
                yield Stretch(start, part.end, section)
            else:
                yield from self._within(part.section, start, part.first + 1, part.last, starts)
        if group is not None:
            yield Stretch(group.start, group.end, group.section)

    def _parts(
        self, section: int, begin: int, first: int, last: int, starts: Sequence[int]
    ) -> Iterator[_Section]:
        """The own text of a section, and its subsections."""
        headings = self.outline.headings
        if starts[first] > begin:
            yield _Section(begin, starts[first], section, first, first)
        while first < last:
            following = first + 1
            while following < last and headings[following].level > headings[first].level:
                following += 1
            yield _Section(starts[first], starts[following], first, first, following)
            first = following

    def _is_heading(self, part: _Section) -> bool:
        """Whether the own text of a section is only its heading."""
        if part.section < 0:
            return False
        line = self.text.find("\n", self.outline.headings[part.section].start)
        return line < 0 or not self.text[line : part.end].strip(" \t\r\n\f=-")

    def _tokens(self, start: int, end: int) -> int:
        return self.tokens_before(end) - self.tokens_before(start)

    # -- stretches -> windows

    def plan(self) -> list[Span]:
        spans: list[Span] = []
        start, covered, at = self._start, self.covered, self._at
        while len(spans) < PLANNED and covered < len(self.text):
            while self._stretches[at].end <= covered:
                at += 1
            stretch = self._stretches[at]
            start = max(start, stretch.start)
            head = self.head_of(stretch.section)
            end = self._end_in(stretch, start, covered)
            if end <= covered:
                start = covered
                end = self._end_in(stretch, start, covered)
            spans.append((start, end, head))
            start, covered = self._after_in(stretch, start, end), end
        return spans

    def take(self, plan: Sequence[Span], tokenised: Sequence[Tokens]) -> None:
        super().take(plan, tokenised)
        while self._at < len(self._stretches) and self._stretches[self._at].end <= self.covered:
            self._at += 1

    def _after(self, start: int, end: int) -> int:
        at = self._at
        while at < len(self._stretches) and self._stretches[at].end < end:
            at += 1
        return self._after_in(self._stretches[at], start, end)

    def _after_in(self, stretch: Stretch, start: int, end: int) -> int:
        """Sections share nothing; neither does code, nor the row of a table."""
        if end >= stretch.end:
            return end
        back = super()._after(start, end)
        if back >= end:
            return end
        for places in (self.outline.blocks, self.outline.lines):
            at = bisect.bisect_left(places, back)
            if at < len(places) and places[at] < end:
                return places[at]
        return end if self._is_whole(back) else back

    def _end_in(self, stretch: Stretch, start: int, covered: int) -> int:
        """Where a window from `start` ends: after `covered` if possible."""
        head = self.head_of(stretch.section)
        furthest = min(self._furthest(start, head), stretch.end)
        if furthest == stretch.end and self._tokens(start, furthest) <= self.room(stretch.section):
            return furthest
        first = self.tokens_before(start)
        room = self.room(stretch.section)
        last = first + room
        high = furthest
        if last < len(self.starts):
            high = min(high, max(int(self.starts[last]), start + 1))
        least = first + int(LEAST * room)
        low = int(self.starts[least]) if least < len(self.starts) else start
        if not start < low < high:
            low = high - max((high - start) * 2 // 5, 1)
        return self._cut(max(low, covered), high, covered, room)

    def _nearby(self, start: int, fitting: int) -> int:
        return self._cut(fitting - max((fitting - start) // 5, 1), fitting, start, self._head.room)

    def _cut(self, low: int, high: int, covered: int, room: int) -> int:
        """The place to cut in (low, high]; before it, but after `covered`, if that would divide what is to
        stay whole."""
        if low >= high:
            return high
        for places in (self.outline.blocks, self.outline.lines):
            if inside := _between(places, low, high):
                return self._chosen(inside)
        patterns: Sequence[re.Pattern[str]] = (SENTENCES, LINES, SPACES)
        if whole := self._whole_at(high):
            start, end = whole
            if covered < start < high and self._tokens(start, end) <= room:
                return start
            patterns = patterns[1:]
        for pattern in patterns:
            ends = [match.end() for match in pattern.finditer(self.text, low, high)]
            if ends:
                return self._chosen(ends)
        return high

    def _whole_at(self, place: int) -> tuple[int, int] | None:
        """The code or the row of a table that this place is inside of."""
        found = self.outline
        at = bisect.bisect_left(found.code_starts, place) - 1
        if at >= 0 and place < found.code_ends[at]:
            return found.code_starts[at], found.code_ends[at]
        start = self.text.rfind("\n", max(place - VARCHAR_BYTES, 0), place) + 1  # no longer line fits
        if start < place and _ROW.match(self.text, start):
            end = self.text.find("\n", place, place + VARCHAR_BYTES) + 1
            return start, end or len(self.text)
        return None

    def _is_whole(self, place: int) -> bool:
        return self._whole_at(place) is not None

    def _chosen(self, places: Sequence[int]) -> int:
        return min(places, key=self._checksum)

    def _checksum(self, place: int) -> tuple[int, int]:
        around = self.text[max(place - _AROUND, 0) : place + _AROUND]
        return crc32(around.encode("utf-8", "surrogatepass")), place


@dataclass(frozen=True, slots=True)
class _Section:
    """The own text of a section, or a subsection with the headings [first, last)."""

    start: int
    end: int
    section: int
    first: int
    last: int

    @property
    def is_own(self) -> bool:
        return self.first == self.last


@dataclass(frozen=True, slots=True)
class _Joined:
    """Neighbours that share a passage. is_heading: it is nothing but a heading."""

    start: int
    end: int
    tokens: int
    section: int
    is_heading: bool = False


class _Breadcrumbs:
    """The breadcrumb of each section: all headings above it and its own, then only its own, for where there
    is not enough room. unique: all of them."""

    def __init__(self, outline: Outline, title: str) -> None:
        above: list[tuple[int, str]] = []
        known, self.breadcrumbs = title.strip().casefold(), list[tuple[str, str]]()
        for heading in outline.headings:
            while above and above[-1][0] >= heading.level:
                above.pop()
            outer = above[-1][1] if above else ""
            own = shortened(heading.text)
            if not outer and heading.text.casefold() == known:
                own = ""
            path = SEPARATOR.join(part for part in (outer, own) if part)
            above.append((heading.level, path))
            self.breadcrumbs.append((path, own))
        self.unique = list(dict.fromkeys(["", *(each for pair in self.breadcrumbs for each in pair)]))


def _between(places: Sequence[int], low: int, high: int) -> Sequence[int]:
    """Those of the ascending places that are in (low, high]."""
    return places[bisect.bisect_right(places, low) : bisect.bisect_right(places, high)]
