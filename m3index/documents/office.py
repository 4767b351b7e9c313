"""Office and OpenDocument files -> Markdown: texts by mammoth and odfdo, slides by python-pptx, tables by
calamine."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from m3index.documents.archives import OLE, checked
from m3index.documents.kinds import BadFileError, Extracted, known

_TITLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"


def docx(data: bytes) -> Extracted:
    """A text of Word. Raises BadFileError."""
    import mammoth

    from m3index.documents.html import markdown_of

    archive = checked(data, "a Word file")
    if "word/document.xml" not in archive.namelist():
        raise BadFileError("it is not a Word file (it has no word/document.xml)")
    no_images = mammoth.images.img_element(lambda _image: {})
    result = mammoth.convert_to_html(io.BytesIO(data), style_map=_TITLES, convert_image=no_images)
    properties = _properties(archive)
    return Extracted(markdown_of(result.value), properties.pop("title", ""), properties)


def pptx(data: bytes) -> Extracted:
    """Slides of PowerPoint, each under its title. Raises BadFileError."""
    from pptx import Presentation

    archive = checked(data, "a PowerPoint file")
    presentation = Presentation(io.BytesIO(data))
    slides = ["\n\n".join(_slide(slide, number)) for number, slide in enumerate(presentation.slides, 1)]
    properties = _properties(archive)
    return Extracted("\n\n".join(slides), properties.pop("title", ""), {**properties, "slides": len(slides)})


def _slide(slide: Any, number: int) -> Iterator[str]:
    title = slide.shapes.title
    heading = " ".join(title.text_frame.text.split()) if title is not None else ""
    yield f"## {heading or f'Slide {number}'}"
    for shape in _shapes(slide.shapes):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame:
            lines = [
                f"{'  ' * p.level}- {p.text}" if p.level else p.text for p in shape.text_frame.paragraphs
            ]
            if text := "\n".join(line for line in lines if line.strip()):
                yield text
        elif getattr(shape, "has_table", False):
            yield table([cell.text for cell in row.cells] for row in shape.table.rows)
    if (
        slide.has_notes_slide
        and (notes := slide.notes_slide.notes_text_frame) is not None
        and notes.text.strip()
    ):
        yield notes.text.strip()


def _shapes(shapes: Any) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        else:
            yield shape


def xlsx(data: bytes) -> Extracted:
    """The sheets of a workbook (.xlsx, .xls, .ods), each a table under its name. Raises BadFileError."""
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError

    if not data.startswith(OLE):
        checked(data, "a workbook")
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = []
        for name in workbook.sheet_names:
            rows = [[_cell(cell) for cell in row] for row in workbook.get_sheet_by_name(name).iter_rows()]
            if text := table(rows):
                sheets.append(f"## {name}\n\n{text}")
    except PasswordError:
        raise BadFileError("it is encrypted; save it without a password") from None
    except CalamineError as error:
        raise BadFileError(f"it is no workbook that can be read: {error}") from None
    return Extracted("\n\n".join(sheets), "", {"sheets": len(sheets)})


def odt(data: bytes) -> Extracted:
    """A text in the OpenDocument format. Raises BadFileError."""
    import odfdo

    archive = checked(data, "an OpenDocument text")
    if "content.xml" not in archive.namelist():
        raise BadFileError("it is not an OpenDocument text (it has no content.xml)")
    document = odfdo.Document(io.BytesIO(data))
    if document.get_type() not in ("text", "text-template"):
        raise BadFileError(f"it is an OpenDocument {document.get_type()}, and no text")
    meta = document.meta
    written = meta.get_modification_date() or meta.get_creation_date()
    properties = known({
        "author": meta.get_creator() or meta.get_initial_creator() or "",
        "lang": meta.get_language() or "",
        "date": written.isoformat() if written else "",
    })  # fmt: skip
    return Extracted(document.to_markdown().strip(), meta.get_title() or "", properties)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as a table in Markdown, the first one as its header; without rows and columns that are empty."""
    kept = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    kept = [row for row in kept if any(row)]
    if not kept:
        return ""
    used = [i for i in range(max(map(len, kept))) if any(i < len(row) and row[i] for row in kept)]
    lines = ["| " + " | ".join(row[i] if i < len(row) else "" for i in used) + " |" for row in kept]
    lines.insert(1, "|" + " --- |" * len(used))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta() | int() | float() | str():
            return str(value)
    return ""


def _properties(archive: Any) -> dict[str, Any]:
    """What an Office file says of itself."""
    from lxml import etree

    if "docProps/core.xml" not in archive.namelist():
        return {}
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    root = etree.fromstring(archive.read("docProps/core.xml"), parser)
    found = {etree.QName(e).localname: (e.text or "").strip() for e in root if isinstance(e.tag, str)}
    return known({
        "title": found.get("title"),
        "author": found.get("creator"),
        "lang": found.get("language"),
        "date": found.get("modified") or found.get("created"),
    })  # fmt: skip
