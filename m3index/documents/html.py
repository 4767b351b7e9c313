"""HTML -> Markdown: the main text of a page, or all of a fragment, by markdownify."""

from __future__ import annotations

import re
from typing import Any

from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

from m3index.documents.kinds import BadFileError, Extracted, known

_NOT_TEXT = [
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "iframe",
    "object",
    "canvas",
    "button",
    "input",
]
_AROUND = ["nav", "aside", "footer", "dialog"]
_ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alert"}
_NAMES = {
    "nav", "navbar", "navigation", "navheader", "navfooter", "menu", "sidebar", "breadcrumb", "breadcrumbs",
    "footer", "site-header", "site-footer", "page-header", "page-footer", "skip-link", "headerlink",
    "cookie-banner", "toolbar",
}  # fmt: skip
"""Classes and ids of what stands around the text on pages without the elements of HTML 5."""

_LAYOUT = ["table", "pre", "h1", "h2", "h3", "h4", "h5", "h6"]
"""What only tables that lay out a page have in a cell."""

_ANCHORS = {"#", "¶", "§", "\U0001f517"}
"""Links of headings to themselves."""

_BINARY = (b"%PDF", b"PK\x03\x04", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"\x7fELF")
_BLANK_LINES = re.compile(r"\n{3,}")


class _Markdown(MarkdownConverter):
    """Without the addresses of links and images, which are not text."""

    def convert_a(self, _el: Any, text: str, parent_tags: Any) -> str:  # noqa: ARG002
        return text

    def convert_img(self, element: Any, _text: str, parent_tags: Any) -> str:  # noqa: ARG002
        return str(element.get("alt") or "")


_CONVERTER = _Markdown(
    heading_style="ATX",
    bullets="-",
    escape_asterisks=False,
    escape_underscores=False,
    table_infer_header=True,
    code_language_callback=lambda element: _language(element),
)


def read(data: bytes) -> Extracted:
    """A page. Raises BadFileError."""
    if data.startswith(_BINARY) or b"\0" in data[:1024].replace(b"\0\0\0", b""):
        raise BadFileError(f"it is not HTML (it begins with {data[:4]!r})")
    soup = BeautifulSoup(data, "lxml")
    metas = {
        next((meta[key].lower() for key in _META_NAMES if meta.get(key)), ""): str(meta["content"])
        for meta in soup.find_all("meta", content=True)
    }
    html = soup.find("html")
    canonical = soup.find("link", rel="canonical", href=True)
    heading = soup.find("h1")
    title = metas.get("og:title") or _text(soup.find("title")) or _text(heading)
    metadata = known({
        "lang": str(html.get("lang") or html.get("xml:lang") or "") if isinstance(html, Tag) else "",
        "url": str(canonical["href"]) if isinstance(canonical, Tag) else metas.get("og:url", ""),
        "date": next((metas[name] for name in _DATES if metas.get(name)), ""),
        "author": metas.get("author", ""),
        "description": metas.get("description") or metas.get("og:description", ""),
    })  # fmt: skip
    text = _main_text(soup) or markdown_of(soup.find("body") or soup)
    return Extracted(text, " ".join(title.split()), metadata)


_META_NAMES = ("property", "name", "itemprop")
_DATES = (
    "article:published_time",
    "date",
    "dc.date",
    "dcterms.date",
    "datepublished",
    "article:modified_time",
)


def markdown_of(part: Any) -> str:
    """All text of an element, or of a fragment in HTML, as Markdown."""
    soup = part
    if isinstance(part, str | bytes):
        whole = BeautifulSoup(part, "lxml")
        soup = whole.find("body") or whole
    for element in soup.find_all(_NOT_TEXT):
        element.decompose()
    for anchor in soup.find_all("a"):
        if anchor.get_text(strip=True) in _ANCHORS:
            anchor.decompose()
    for table in soup.find_all("table"):
        if table.find(_LAYOUT):
            for element in [table, *table.find_all(["tbody", "thead", "tfoot", "tr", "td", "th"])]:
                element.name = "div"
    for cell in soup.find_all(["td", "th"]):
        for text in cell.find_all(string=lambda string: "|" in string):
            text.replace_with(text.replace("|", "\\|"))
    written: str = _CONVERTER.convert_soup(soup)
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in written.splitlines())).strip()


def _main_text(soup: BeautifulSoup) -> str:
    """The text of the element that a page says is its main one, else of all that does not stand around it."""
    articles = soup.find_all("article")
    main = (
        soup.find("main")
        or soup.find(attrs={"role": "main"})
        or (articles[0] if len(articles) == 1 else None)
    )
    top = main if isinstance(main, Tag) and main.get_text(strip=True) else soup.find("body") or soup
    for element in top.find_all(True):
        if not element.decomposed and _stands_around(element):
            element.decompose()
    if top is not main:
        _drop_menus(top)
    return markdown_of(top)


def _drop_menus(top: Tag) -> None:
    """Takes away lists of links, unless the page is little more than such lists."""
    menus = []
    for element in top.find_all(["ul", "ol", "dl"]):
        links = element.find_all("a")
        linked = sum(len(_text(link)) for link in links)
        if len(links) >= _MENU_LINKS and linked > _MENU_SHARE * len(_text(element)):
            menus.append(element)
    outer = [menu for menu in menus if not any(parent in menus for parent in menu.parents)]
    size, inside = len(_text(top)), sum(len(_text(menu)) for menu in outer)
    if size - inside >= min(_TEXT_LEFT, size / 2):
        for menu in outer:
            menu.decompose()


_MENU_LINKS, _MENU_SHARE, _TEXT_LEFT = 4, 0.8, 500


def _stands_around(element: Tag) -> bool:
    if element.name in ("html", "body", "main", "article", "h1"):
        return False
    attributes = element.attrs
    names = attributes.get("class") or []
    return (
        element.name in _AROUND
        or (element.name == "header" and element.parent is not None and element.parent.name == "body")
        or "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in _ROLES
        or not _NAMES.isdisjoint([*([names] if isinstance(names, str) else names), str(attributes.get("id"))])
    )


def _language(element: Any) -> str:
    """The language of a code block, of its class `language-x`, or `code x` of docutils."""
    for one in (element, element.find("code")):
        names = list(one.get("class") or []) if isinstance(one, Tag) else []
        for name in names:
            if name.startswith(("language-", "highlight-")):
                return str(name.partition("-")[2])
        if names[:1] == ["code"] and len(names) > 1 and names[1] != "literal-block":
            return str(names[1])
    return ""


def _text(element: Any) -> str:
    return element.get_text(" ", strip=True) if isinstance(element, Tag) else ""
