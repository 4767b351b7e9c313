"""The types of files that are one document each, and what reading them needs.

Every reader turns the bytes of a file into an `Extracted`, whose text is Markdown: headings as `# ...` lines,
tables as `| ... |` lines, code between fences. So what divides a text at its headings needs to know one form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

ParsedType: TypeAlias = Literal["html", "pdf", "docx", "pptx", "xlsx", "odt", "rst", "epub", "eml"]
PARSED: tuple[ParsedType, ...] = get_args(ParsedType)
EXTRA = "documents"
_HTML = ("bs4", "lxml", "markdownify")
_NEEDS: Mapping[ParsedType, tuple[str, ...]] = {
    "html": _HTML,
    "pdf": ("pypdfium2",),
    "docx": ("mammoth", *_HTML),
    "pptx": ("pptx",),
    "xlsx": ("python_calamine",),
    "odt": ("odfdo",),
    "rst": ("docutils", *_HTML),
    "epub": _HTML,
    "eml": _HTML,
}

MAX_FILE = 256 * 1024 * 1024
"""The limit for a file, and for what the files of an archive unpack to, in bytes."""
MAX_TEXT = 64 * 1024 * 1024
"""The limit for the text of a document, in characters."""
MAX_PAGES = 20_000
MAX_PARTS = 20_000
"""The limit for the files of an archive."""


class BadFileError(Exception):
    """The file is not a document that can be read. The message is the reason. It never leaves a reader."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a file holds. text: Markdown. title: empty if the file has none. metadata: JSON values."""

    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@cache
def is_installed(kind: ParsedType) -> bool:
    """Whether the libraries are there that read files of this type."""
    return all(find_spec(module) is not None for module in _NEEDS[kind])


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata without what is empty."""
    return {name: value for name, value in values.items() if value}
