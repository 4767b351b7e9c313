"""reStructuredText -> Markdown, by docutils and by way of HTML. What only Sphinx knows is read as text."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.core import publish_parts
from docutils.parsers.rst import Directive, directives, roles

from m3index.documents.html import markdown_of
from m3index.documents.kinds import BadFileError, Extracted

_SETTINGS = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 5,
    "halt_level": 6,
    "exit_status_level": 6,
    "traceback": False,
    "embed_stylesheet": False,
    "stylesheet_path": None,
    "syntax_highlight": "none",
    "math_output": "LaTeX",
    "initial_header_level": 1,
    "doctitle_xform": False,
    "_disable_config": True,
    "line_length_limit": 1_000_000,
}
_FIELDS = re.compile(r"\A(?:[ \t]*\n|:[\w -]+:.*\n)+")
"""What a document says of itself to Sphinx, as in `:tocdepth: 2`."""
_NO_TEXT = {
    "toctree",
    "index",
    "include",
    "image",
    "raw",
    "highlight",
    "currentmodule",
    "automodule",
    "autoclass",
}
_CODE = {"code-block", "sourcecode", "literalinclude", "parsed-literal", "doctest", "testcode", "prompt"}


class _Unknown(Directive):
    """A directive that docutils does not know: its argument, and its contents as text or as code."""

    optional_arguments, final_argument_whitespace, has_content = 100, True, True
    option_spec = None

    def run(self) -> list[Any]:
        if self.name in _NO_TEXT:
            return []
        lines = list(self.content)
        while lines and lines[0].startswith(":"):  # its options
            lines.pop(0)
        if self.name in _CODE:
            return [nodes.literal_block(text="\n".join(lines))] if lines else []
        container = nodes.container()
        if self.arguments:
            container += nodes.paragraph("", "", nodes.strong(text=" ".join(self.arguments)))
        self.content.trim_start(len(self.content) - len(lines))
        self.state.nested_parse(self.content, self.content_offset, container)
        return [container]


def _unknown_role(_name: str, _raw: str, text: str, *_: Any) -> tuple[list[Any], list[Any]]:
    """A role such as :class:`Index`, or :ref:`its text <its target>`."""
    shown = text.partition("<")[0].strip() or text.strip("<>")
    return [nodes.literal(text=shown.lstrip("~!"))], []


def _tolerant() -> None:
    """Lets what is unknown pass as text, in this process."""
    known_directive, known_role = directives.directive, roles.role

    def directive(name: str, language: Any, document: Any) -> tuple[Any, list[Any]]:
        found, messages = known_directive(name, language, document)
        return (_Unknown, []) if found is None else (found, messages)

    def role(name: str, *context: Any) -> tuple[Any, list[Any]]:
        found, messages = known_role(name, *context)
        return (_unknown_role, []) if found is None else (found, messages)

    directives.directive, roles.role = directive, role


_tolerant()


def read(data: bytes) -> Extracted:
    """Raises BadFileError."""
    try:
        source = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFileError(f"it is not UTF-8 at byte {error.start + 1}") from None
    parts = publish_parts(_FIELDS.sub("", source), writer="html5", settings_overrides=_SETTINGS)
    text = markdown_of(parts["html_body"])
    first = next((line for line in text.splitlines() if line), "")
    return Extracted(text, first.removeprefix("# ").strip() if first.startswith("# ") else "")
