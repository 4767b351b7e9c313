"""PDF -> text, by PDFium. The entries of its outline become headings, and a form feed divides the pages."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pypdfium2 as pdfium

from m3index.documents.kinds import MAX_PAGES, MAX_TEXT, BadFileError, Extracted, known
from m3index.wording import many

_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
_HYPHEN = re.compile(r"[\x02\ufffe]\s*\n?|\xad\n")
_DEPTH = 6
PAGE_BREAK = "\n\f\n"
"""Stands between pages, so that a place of the text tells its page; for all else it is a blank line."""


def read(data: bytes) -> Extracted:
    """The text of all pages. Raises BadFileError."""
    if b"%PDF-" not in data[:1024]:
        raise BadFileError(f"it is not PDF (it begins with {data[:4]!r})")
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise BadFileError("it is encrypted; save it without a password") from None
        raise BadFileError(f"it is damaged: {error}") from None
    count = len(document)
    if count > MAX_PAGES:
        raise BadFileError(f"it has {count:,} pages, more than {MAX_PAGES:,}")
    headings, pages, size = _outline(document), [], 0
    for number in range(count):
        text = _page(document, number)
        size += len(text)
        if size > MAX_TEXT:
            raise BadFileError(f"its text is longer than {MAX_TEXT:,} characters")
        pages.append(_with_headings(text, headings[number]))
    if not size:
        raise BadFileError(
            f"it has {many(count, 'page')} and no text: a scan? Recognise its text first, as with ocrmypdf"
        )
    values = document.get_metadata_dict(skip_empty=True)
    found = _DATE.match(values.get("ModDate") or values.get("CreationDate") or "")
    written = "-".join(part for part in found.groups() if part) if found else ""
    metadata = known({"author": values.get("Author"), "date": written}) | {"pages": count}
    return Extracted(PAGE_BREAK.join(pages), values.get("Title", "").strip(), metadata)


def _page(document: Any, number: int) -> str:
    try:
        page = document[number]
        text_page = page.get_textpage()
    except pdfium.PdfiumError as error:
        raise BadFileError(f"its page {number + 1:,} is damaged: {error}") from None
    text = text_page.get_text_range().replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    text_page.close()
    page.close()
    return "\n".join(line.rstrip() for line in _HYPHEN.sub("", text).splitlines()).strip()


def _outline(document: Any) -> dict[int, list[tuple[int, str]]]:
    """(level, title) of the entries that lead to each page."""
    headings: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for entry in document.get_toc(max_depth=_DEPTH):
        place, title = entry.get_dest(), " ".join((entry.get_title() or "").split())
        if place is not None and place.get_index() is not None and title:
            headings[place.get_index()].append((entry.level + 1, title))
    return headings


def _with_headings(text: str, headings: list[tuple[int, str]]) -> str:
    """The page with its headings marked, where a line is one; others stand above it."""
    if not headings:
        return text
    lines, above = text.splitlines(), []
    places: dict[str, int] = {}
    for number, line in enumerate(lines):
        places.setdefault(_bare(line), number)
    for level, title in headings:
        found = places.get(_bare(title))
        if found is None:
            above.append(f"{'#' * level} {title}")
        elif not lines[found].startswith("#"):
            lines[found] = f"{'#' * level} {lines[found].strip()}"
    return "\n".join([*above, *lines]).strip()


def _bare(text: str) -> str:
    """A heading without its number, its case and its spaces."""
    return re.sub(r"[\W_]+", "", text.lstrip("0123456789. ")).casefold()
