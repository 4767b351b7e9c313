"""Which files of a corpus are read, and by which names they are known."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from m3index.corpus.remote import is_remote
from m3index.errors import UsageError

EXCLUDED, NOT_INCLUDED = "excluded", "not included"


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to read of those that the user's paths name.

    root: the folder that names are relative to, local or in an object store; None for the directory that is
    read, or the working directory for files. include, exclude: patterns as in a .gitignore, for names;
    without `include`, all files are included. hidden: whether files and folders whose names begin with a dot
    are read. base: the folder that takes the place of the working directory in names.

    Raises UsageError for a root that is no folder and for a pattern that is none.
    """

    root: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    hidden: bool = False
    base: str | None = None
    _included: Any = field(init=False, repr=False, compare=False, default=None)
    _excluded: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.root is not None and not is_remote(self.root) and not os.path.isdir(self.root):
            raise UsageError(f"--root: there is no folder {self.root!r}.")
        object.__setattr__(self, "_included", _patterns("--include", self.include))
        object.__setattr__(self, "_excluded", _patterns("--exclude", self.exclude))

    def refusal(self, name: str) -> str:
        """Why the file with this name, or the folder with a name that ends in a slash, is not read; empty if
        it is."""
        folder = name.endswith("/")
        if (
            self._excluded is not None
            and not (folder and self._keeps_some)
            and self._excluded.match_file(name)
        ):
            return EXCLUDED
        if self._included is not None and not folder and not self._included.match_file(name):
            return NOT_INCLUDED
        return ""

    @property
    def _keeps_some(self) -> bool:
        """Whether a pattern takes back what others exclude, so that every folder is looked into."""
        return any(pattern.startswith("!") for pattern in self.exclude)

    def name_of(self, path: str, remote: str | None = None) -> str:
        """The name of a file that is named by itself, however its path is spelt. remote: its address in an
        object store. Raises UsageError if it lies outside the root."""
        if remote is not None:
            return normal(remote if self.root is None else _inside(remote, self.root.rstrip("/"), self.root))
        whole = os.path.abspath(path)
        if self.root is not None:
            return normal(_inside(whole, os.path.abspath(self.root), self.root))
        inside = os.path.relpath(whole, self.base)
        return normal(whole if inside.startswith(os.pardir) else inside)

    def prefix_of(self, path: str, remote: str | None = None) -> str:
        """What the names of files in this directory begin with: its path inside the root, with a slash."""
        if self.root is None:
            return ""
        name = self.name_of(path, remote)
        return "" if name in ("", ".") else f"{name}/"


def normal(name: str) -> str:
    """A path as a name: with forward slashes, and letters with accents as one character (NFC)."""
    name = PurePath(name).as_posix() if "://" not in name else name
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _inside(whole: str, folder: str, root: str) -> str:
    if whole == folder:
        return ""
    start = folder.rstrip("/") + "/"
    if is_remote(whole) != is_remote(root) or not whole.startswith(start):
        raise UsageError(f"{whole!r} is not inside --root {root}.")
    return whole[len(start) :]


def _patterns(option: str, lines: Sequence[str]) -> Any:
    """The patterns, compiled; None if there are none. Raises UsageError."""
    if not lines:
        return None
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines)
    except (ValueError, re.error) as error:
        raise UsageError(f"{option} takes patterns as in a .gitignore: {error}") from None


ALL = Selection()
