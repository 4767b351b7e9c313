"""Markdown files: their front matter (YAML between `---`, TOML between `+++`) and their title."""

from __future__ import annotations

import re
import tomllib
from datetime import date, datetime, time
from typing import Any

from m3index.documents.kinds import BadFileError, Extracted

MAX_FRONT = 64 * 1024
"""The limit for front matter, in characters: more does not fit into the metadata."""

_FRONT = re.compile(r"\A(---|\+\+\+)[ \t]*\r?\n(.*?)(?:^|(?<=\n))(?:\1|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_ATX = re.compile(r" {0,3}#[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
_RULE = re.compile(r" {0,3}=+[ \t]*")


def markdown(text: str) -> Extracted:
    """The text without its front matter, whose `title` is the title and whose other values are metadata.
    Without one, the title is the heading of the first level that it begins with. Raises BadFileError."""
    body, values = _divided(text)
    title = values.pop("title", None)
    if isinstance(title, list | dict):
        raise BadFileError("the title in its front matter is no text")
    return Extracted(body, _heading(body) if title in (None, "") else str(title), values)


def _divided(text: str) -> tuple[str, dict[str, Any]]:
    found = _FRONT.match(text[: MAX_FRONT + 16])
    if found is None:
        if text.startswith("---\n") and "\n---" in text[MAX_FRONT:]:
            raise BadFileError(f"its front matter is longer than {MAX_FRONT:,} characters")
        return text, {}
    values = _toml(found[2]) if found[1] == "+++" else _yaml(found[2])
    if not isinstance(values, dict):  # a rule, a text and another rule
        return text, {}
    return text[found.end() :], {str(key): _json(value) for key, value in values.items()}


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadFileError(f"its front matter is not TOML: {error}") from None


def _yaml(text: str) -> Any:
    import yaml

    class Anchored(yaml.SafeLoader):
        """Without aliases, which make gigabytes of a few lines."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases (*name) are not allowed")
            return super().compose_node(parent, index)

    try:
        fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(text, Anchored if "&" in text else fast)  # noqa: S506  (both are safe loaders)
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 2}" if error.problem_mark else ""
        raise BadFileError(f"its front matter is not YAML{line}: {error.problem}; quote the value") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadFileError(f"its front matter is not YAML: {str(error).splitlines()[0]}") from None


def _json(value: Any) -> Any:
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case list() | tuple() | set():
            return [_json(one) for one in value]
        case dict():
            return {str(key): _json(one) for key, one in value.items()}
        case bytes():
            raise BadFileError("its front matter holds binary data")
    return value


def _heading(text: str) -> str:
    """The heading of the first level that the text begins with, after blank lines; empty if there is none."""
    lines = iter(text.lstrip()[:2000].splitlines())
    first = next(lines, "")
    if found := _ATX.fullmatch(first):
        return found[1].strip()
    return first.strip() if first.strip() and _RULE.fullmatch(next(lines, "")) else ""
