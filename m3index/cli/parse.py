"""Small things that options are written as."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from m3index.errors import UsageError

if TYPE_CHECKING:
    from m3index.corpus.windows import PassageSettings
    from m3index.schema import IndexChoice
    from m3index.types import SparseKind, Storage

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def passages(tokens: str, overlap: int | None) -> PassageSettings | None:
    """The options --passage-tokens and --overlap; None where neither was given."""
    from m3index.corpus.windows import PassageSettings

    if not tokens:
        return PassageSettings(None, overlap) if overlap is not None else None
    if tokens == "full":
        return PassageSettings("full", overlap)
    if not tokens.isascii() or not tokens.isdecimal():
        raise UsageError(f"--passage-tokens takes a number or full, not {tokens!r}.")
    return PassageSettings(int(tokens), overlap)


def sparse(text: str) -> SparseKind | None:
    """The option --sparse; None where it was not given."""
    match text:
        case "":
            return None
        case "lexical" | "bm25" | "none":
            return text
    raise UsageError(f"--sparse is lexical, bm25 or none, not {text!r}.")


def storage(text: str) -> Storage | None:
    """The option --storage; None where it was not given."""
    from m3index.schema import parse_storage

    return parse_storage(text) if text else None


def index(size: str, changes: list[str]) -> IndexChoice | None:
    """The options --index-class and --index; None where neither was given."""
    from m3index.schema import IndexChoice

    return IndexChoice.parse(size or "small", changes) if size or changes else None


def seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `1h` -> seconds."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if not found:
        raise UsageError(f"A time is written 90s, 5m or 1h; {text!r} is not.")
    return float(found[1]) * _UNITS[found[2]]
