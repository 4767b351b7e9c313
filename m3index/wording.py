"""Counts and names in messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def many(count: int, one: str, several: str | None = None) -> str:
    """`1 row`, `2,000 rows`; or, with a verb, `1 row is lost`, `2 rows are lost`.

    several: the words for any other count than one; by default `one` with an s.
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def to_install(extra: str) -> str:
    """How to install an extra of m3index."""
    return f"Install it with: {sys.executable} -m pip install 'm3index[{extra}]'"


def short_names(paths: Sequence[str]) -> dict[str, Path]:
    """Names that tell files or directories apart, without the folders that all share:
    `data/xquad/ar` and `data/scifact` are `xquad/ar` and `scifact`. One alone has its last name."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    shared = os.path.commonpath([path.parent for path in whole]) if whole else ""
    return {path.relative_to(shared).as_posix(): path for path in whole}
