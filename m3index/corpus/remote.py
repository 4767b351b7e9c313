"""Corpora in object stores (`s3://`, `gs://`, what fsspec opens): listed level by level, read as streams."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, BinaryIO, cast

from m3index.errors import UsageError
from m3index.files import file_system, mapped

_BUFFER = 8 * 2**20
"""Each read of an object store is a request of its own: few and large ones."""
_MAGIC = re.compile(r"[*[]")
_WITH_OPTIONS = ("s3", "gs", "gcs")


def is_remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file, a folder or a pattern. key: its path within the bucket; options: `?endpoint_override=...`.

    Keys are taken as they are written, with no %-escapes. folder, size: known of what was listed.
    """

    bucket: str
    key: str
    options: str
    fs: Any = field(repr=False, compare=False)
    root: str = field(repr=False)
    folder: bool = False
    size: int | None = None

    @classmethod
    def of(cls, uri: str) -> Remote:
        """Opens the store. Raises UsageError, UnreachableError."""
        scheme, _, rest = uri.partition("://")
        rest, question, options = rest.partition("?") if scheme in _WITH_OPTIONS else (rest, "", "")
        host, _, key = rest.partition("/")
        if ":" in host.rpartition("@")[0]:
            raise UsageError(
                f"Keys do not belong in the name of a corpus ({scheme}://...@{host.rpartition('@')[2]}): set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if scheme in _WITH_OPTIONS and not host:
            raise UsageError(f"{uri!r} names no bucket; a corpus there is written {scheme}://BUCKET/KEY.")
        bucket, options = f"{scheme}://{host}", question + options
        fs, root = file_system(bucket + options, local=False)
        return cls(bucket, key.rstrip("/"), options, fs, root)

    def __str__(self) -> str:
        return f"{self.name}{self.options}"

    @property
    def name(self) -> str:
        """As people write it, without options."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def base(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def _path(self) -> str:
        return f"{self.root.rstrip('/')}/{self.key}" if self.key else self.root

    def look(self) -> Remote | None:
        """With what it is; None where there is neither a file nor a folder of this name."""
        from pyarrow import fs

        with self._mapped():
            found = self.fs.get_file_info(self._path)
        if found.type == fs.FileType.NotFound:
            return None
        folder = found.type == fs.FileType.Directory
        return replace(self, folder=folder, size=None if folder else found.size)

    def listing(self) -> list[Remote]:
        """What is right in this folder, by name."""
        from pyarrow import fs

        with self._mapped():
            found = self.fs.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        prefix = f"{self.key}/" if self.key else ""
        entries = [
            replace(
                self,
                key=f"{prefix}{info.base_name}",
                folder=info.type == fs.FileType.Directory,
                size=info.size if info.type == fs.FileType.File else None,
            )
            for info in found
        ]
        return sorted(entries, key=lambda entry: entry.base)

    def matches(self) -> Iterator[Remote]:
        """What this pattern names: `*` and `[...]` within a name, `**` for folders of any depth."""
        parts = self.key.split("/")
        plain = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
        yield from _matching(replace(self, key="/".join(parts[:plain]), folder=True), parts[plain:])

    @property
    def pattern(self) -> bool:
        return bool(_MAGIC.search(self.key))

    def stream(self) -> AbstractContextManager[BinaryIO]:
        """The file's bytes, in order; an OSError where they end."""
        source = self.fs.open_input_stream(self._path, compression=None, buffer_size=_BUFFER)
        return cast("AbstractContextManager[BinaryIO]", source)

    def random(self) -> Any:
        """For random access, a `pyarrow.NativeFile`."""
        return self.fs.open_input_file(self._path)

    def _mapped(self) -> AbstractContextManager[None]:
        return mapped(self.name, local=False)


def _matching(folder: Remote, parts: list[str]) -> Iterator[Remote]:
    """The entries below a folder that match these parts of a pattern; hidden ones by name only."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        if rest:
            yield from _matching(folder, rest)
        for entry in folder.listing():
            if entry.base.startswith("."):
                continue
            if entry.folder:
                yield from _matching(entry, parts)
            elif not rest:
                yield entry
        return
    for entry in folder.listing():
        if entry.base.startswith(".") and not part.startswith("."):
            continue
        if not fnmatchcase(entry.base, part):
            continue
        if not rest:
            yield entry
        elif entry.folder:
            yield from _matching(entry, rest)
