"""The structure of a text in Markdown: its sections, its blocks, and what links to a place of it.

Every reader of documents/ makes Markdown, so this is the only form to know. One pass over the lines, in time
that grows with the text and nothing else, because texts are anyone's.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from unicodedata import category

import numpy as np

MAX_HEADINGS = 50_000
"""A text with more headings than this has none."""
MAX_HEADING = 300
"""The characters of a heading that count."""
HEADING_CHARACTERS = 80
"""What a breadcrumb shows of a heading."""
SEPARATOR = " > "

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t\r]*")
_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
_COMMENT = re.compile(r" {0,3}<!--")
_RULE = re.compile(r" {0,3}(=+|-{2,})[ \t\r]*")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]")
_NO_TITLE = re.compile(r"    |\t|[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t])")
"""What begins a line that no rule below it makes a heading."""
_ALONE = 2 / 3
_ANCHORED = frozenset({"", "markdown", "html", "rst"})
"""The formats of which a heading can be linked to."""


@dataclass(frozen=True, slots=True)
class Heading:
    """start: where its line begins. level: from 1. text: without markup."""

    start: int
    level: int
    text: str


@dataclass(slots=True)
class Outline:
    """headings: of the sections, ascending. blocks: where paragraphs, lists, tables and code begin that do
    not follow a heading. lines: where rows of tables and items of lists begin. code_starts, code_ends: of
    blocks of code. All are places in the text, ascending, in arrays because a text can have millions."""

    headings: list[Heading] = field(default_factory=list)
    blocks: array[int] = field(default_factory=lambda: array("i"))
    lines: array[int] = field(default_factory=lambda: array("i"))
    code_starts: array[int] = field(default_factory=lambda: array("i"))
    code_ends: array[int] = field(default_factory=lambda: array("i"))

    def add_code(self, start: int, end: int) -> None:
        self.code_starts.append(start)
        self.code_ends.append(end)


def outline(text: str, format: str) -> Outline:  # noqa: A002
    """The structure of a text. A row of a corpus (without a format) and a plain text may be anything: lines
    that begin with # are comments of a script, or tags. There, headings count only if most of them stand
    alone, between blank lines."""
    is_sure = format not in ("", "text")
    found, alone = _scan(text, is_sure)
    if len(found.headings) > MAX_HEADINGS or (not is_sure and alone < _ALONE * len(found.headings)):
        found.headings = []
    return found


def _scan(text: str, is_markdown: bool) -> tuple[Outline, int]:
    """The structure, and how many headings stand between blank lines."""
    found, alone, start = Outline(), 0, 0
    blank, after_heading, in_row = True, False, False  # what the line before is
    pending = False  # whether the line before is a heading that stands alone if a blank line follows
    line_before, start_before, blank_before = "", 0, True
    fence, code_start, in_comment = "", -1, False
    while start <= len(text):
        begin, end = start, text.find("\n", start)
        line = text[begin : end if end >= 0 else len(text)]
        start += len(line) + 1
        if fence:
            if (closing := line.strip()) and not closing.strip(fence[0]) and len(closing) >= len(fence):
                found.add_code(code_start, min(start, len(text)))
                fence, blank, after_heading = "", True, False  # what follows is a block of its own
            continue
        if not line or line.isspace():
            alone += pending
            blank, pending, in_row = True, False, False
            line_before = ""
            continue
        pending, was_blank = False, blank
        blank = False
        if in_comment:
            in_comment = "-->" not in line
            continue
        if is_markdown and _COMMENT.match(line):
            in_comment = "-->" not in line
            if was_blank and not after_heading:
                found.blocks.append(begin)
            after_heading, in_row, line_before = False, False, ""
            continue
        if (opening := _FENCE.match(line)) and (is_markdown or opening[1][0] == "`"):
            fence, code_start = opening[1], begin
            if not after_heading:
                found.blocks.append(begin)
            in_row, line_before = False, ""
            continue
        if line.lstrip(" ").startswith("#") and (heading := _ATX.fullmatch(line)):
            if len(found.headings) <= MAX_HEADINGS:
                found.headings.append(Heading(begin, len(heading[1]), plain(heading[2] or "")))
            after_heading, in_row, pending = True, False, was_blank
            line_before = ""
            continue
        if is_markdown and line_before and blank_before and (rule := _RULE.fullmatch(line)):
            level = 1 if rule[1][0] == "=" else 2
            if len(found.headings) <= MAX_HEADINGS:
                found.headings.append(Heading(start_before, level, plain(line_before)))
            if found.blocks and found.blocks[-1] == start_before:
                found.blocks.pop()
            after_heading, in_row, line_before = True, False, ""
            continue
        is_row = line.lstrip(" \t").startswith("|")
        if is_markdown and was_blank and line.startswith(("    ", "\t")) and not is_row:
            found.add_code(begin, min(start, len(text)))
        elif found.code_ends and found.code_ends[-1] == begin and line.startswith(("    ", "\t")):
            found.code_ends[-1] = min(start, len(text))
        if was_blank or (is_row and not in_row):
            if not after_heading:
                found.blocks.append(begin)
        elif is_row or _ITEM.match(line):
            found.lines.append(begin)
        in_row, after_heading = is_row, False
        line_before = "" if is_row or _NO_TITLE.match(line) else line
        start_before, blank_before = begin, was_blank
    if fence:
        found.add_code(code_start, len(text))
    return found, alone + pending


_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_TAG = re.compile(r"</?[A-Za-z][^>]*>")
_EMPHASIS = re.compile(r"(?<![\w\\])[*_]{1,3}(?=\S)|(?<=[^\s\\])[*_]{1,3}(?!\w)")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


def plain(heading: str) -> str:
    """A heading as it is read: without links, emphasis, code marks and tags."""
    text = heading[:MAX_HEADING]
    if not text.isalnum():
        text = _LINK.sub(r"\1", text)
        parts = re.split(r"(`+)", text)
        text = "".join(
            part if number % 4 == 2 else "" if number % 2 else _EMPHASIS.sub("", _TAG.sub("", part))
            for number, part in enumerate(parts)
        )
        text = _ESCAPE.sub(r"\1", text)
    return " ".join(text.split())


def slugs(headings: Sequence[Heading]) -> Iterator[str]:
    """The anchor of each heading by GitHub's rule: lower case, no punctuation, a hyphen for a space; a number
    after one that occurred before."""
    seen = Counter[str]()
    for heading in headings:
        kept = (c for c in heading.text.lower() if c in "-_ " or c.isalnum() or category(c)[0] == "M")
        original = slug = "".join(kept).replace(" ", "-")
        while slug in seen:
            seen[original] += 1
            slug = f"{original}-{seen[original]}"
        seen[slug] = 0
        yield slug


def shortened(heading: str) -> str:
    """A heading in a breadcrumb."""
    return heading if len(heading) <= HEADING_CHARACTERS else f"{heading[: HEADING_CHARACTERS - 1].rstrip()}…"


def anchors(text: str, format: str, found: Outline, starts: Sequence[int]) -> list[str]:  # noqa: A002
    """What links to each of these places of the text, to stand after a `#`: `page=12` of a PDF, `L120` of a
    plain text, else the last heading. Empty for its beginning, and where there is nothing to link to."""
    if format == "pdf":
        return [f"page={1 + number}" if start else "" for start, number in _counted(text, "\f", starts)]
    if format == "text":
        return [f"L{1 + number}" if start else "" for start, number in _counted(text, "\n", starts)]
    if format not in _ANCHORED or not found.headings:
        return [""] * len(starts)
    names = list(slugs(found.headings))
    places = np.searchsorted([heading.start for heading in found.headings], starts, "right")
    return [names[i - 1] if i and start else "" for i, start in zip(places.tolist(), starts, strict=True)]


def _counted(text: str, mark: str, starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each place with the number of these characters before it. starts: ascending."""
    number = before = 0
    for start in starts:
        number += text.count(mark, before, start)
        before = start
        yield start, number
