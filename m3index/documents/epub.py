"""EPUB -> Markdown: its chapters in the order of reading."""

from __future__ import annotations

import posixpath
from typing import Any
from urllib.parse import unquote

from lxml import etree

from m3index.documents.archives import checked, part_of
from m3index.documents.html import markdown_of
from m3index.documents.kinds import MAX_TEXT, BadFileError, Extracted, known

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)
_PAGES = ("application/xhtml+xml", "text/html")


def read(data: bytes) -> Extracted:
    """Raises BadFileError."""
    archive = checked(data, "an EPUB")
    names = set(archive.namelist())
    if "META-INF/rights.xml" in names and "META-INF/encryption.xml" in names:
        raise BadFileError("it is encrypted for the customers of a shop (DRM)")
    container = _xml(part_of(archive, "META-INF/container.xml"))
    package_name = next((str(e.get("full-path")) for e in _all(container, "rootfile")), "")
    package = _xml(part_of(archive, package_name))
    folder = posixpath.dirname(package_name)
    items = {str(item.get("id")): item for item in _all(package, "item")}
    chapters, size = [], 0
    for reference in _all(package, "itemref"):
        item = items.get(str(reference.get("idref")))
        if (
            item is None
            or item.get("media-type") not in _PAGES
            or "nav" in str(item.get("properties")).split()
        ):
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote(str(item.get("href")))))
        chapters.append(markdown_of(part_of(archive, name)))
        size += len(chapters[-1])
        if size > MAX_TEXT:
            raise BadFileError(f"its text is longer than {MAX_TEXT:,} characters")
    said = {name: next((e.text or "" for e in _all(package, name)), "").strip() for name in _SAID}
    metadata = known({"lang": said["language"], "author": said["creator"], "date": said["date"]})
    return Extracted("\n\n".join(chapter for chapter in chapters if chapter), said["title"], metadata)


_SAID = ("title", "language", "creator", "date")


def _xml(data: bytes) -> Any:
    try:
        return etree.fromstring(data, _PARSER)
    except etree.XMLSyntaxError as error:
        raise BadFileError(f"it is damaged: {error}") from None


def _all(root: Any, name: str) -> Any:
    return root.iter(f"{{*}}{name}")
