"""What a pass over files found: which files gave documents, and what lies there and was not read.

A document whose file was not read has not left the corpus. A file that gave documents before and gives none
now is missing for good only if nothing of its name is left: no link in place of its folder, no FIFO, no empty
file, no other ending.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Self

MAX_TEXT = 64_000
"""The maximum length of a listing as text, which is kept in the collection: about 10,000 names. Of more, the
first by name are kept."""


@dataclass(slots=True)
class Listing:
    """gave: the names of files that gave rows, except plain text, where the name is the id of the document.
    unread: what was found but not read, by stem: the path with the reason. Folders end in a slash."""

    gave: set[str] = field(default_factory=set)
    unread: dict[str, str] = field(default_factory=dict)

    def add_unread(self, name: str, path: str, reason: str) -> None:
        """name: of the file, or of the folder with a slash at its end, as `gave` has it."""
        self.unread.setdefault(stem(name), f"{path} ({reason})")

    def left(self, name: str) -> str:
        """What is left in place of the file with this name and was not read; empty if nothing is."""
        if found := self.unread.get(stem(name)):
            return found
        folders = (f"{folder.as_posix()}/" for folder in PurePath(name).parents)
        return next((self.unread[folder] for folder in folders if folder in self.unread), "")

    def lost(self, before: Listing) -> str:
        """Something that gave rows in the earlier pass `before` and was not read in this one; empty if there
        is nothing."""
        return next(filter(None, (self.left(name) for name in sorted(before.gave - self.gave))), "")

    def without(self, before: Listing) -> Listing:
        """This listing without what was already left unread in the earlier pass."""
        return Listing(self.gave, {k: v for k, v in self.unread.items() if k not in before.unread})

    def to_text(self) -> str:
        """A short form for a property of the collection, without the reasons."""
        gave, unread = sorted(self.gave), sorted(self.unread)
        while len(text := _packed([gave, unread])) > MAX_TEXT:
            if unread:
                unread = unread[: len(unread) // 2]
            else:
                gave = gave[: len(gave) * 3 // 4]
        return text

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Reads `to_text`; an empty listing for anything else."""
        with suppress(ValueError, zlib.error):
            gave, unread = json.loads(zlib.decompress(base64.b85decode(text)))
            return cls(set(gave), dict.fromkeys(unread, ""))
        return cls()


def stem(name: str) -> str:
    """The name without what is likely to change: leading dots and all endings of its last part."""
    folder, slash, last = name.rstrip("/").rpartition("/")
    bare = last.lstrip(".")
    return f"{folder}{slash}{bare}/" if name.endswith("/") else f"{folder}{slash}{bare.partition('.')[0]}"


def _packed(lists: Iterable[list[str]]) -> str:
    return base64.b85encode(zlib.compress(json.dumps(list(lists)).encode(), 9)).decode()
