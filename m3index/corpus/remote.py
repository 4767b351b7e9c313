"""Corpora in object stores (`s3://`, `gs://`, those of fsspec), listed level by level and read as streams."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, BinaryIO, cast

from m3index.errors import UsageError
from m3index.files import file_system, mapped, patiently

_BUFFER = 8 * 2**20
"""Each read of an object store is a separate request, so reads are few and large."""
_MAGIC = re.compile(r"[*[]")
_WITH_OPTIONS = ("s3", "gs", "gcs")


def is_remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file, a folder or a pattern. key: its path within the bucket; options: `?endpoint_override=...`.

    Keys are taken literally, without %-escapes. folder, size, modified (a Unix time): known once `look` or
    `listing` has read them.
    """

    bucket: str
    key: str
    options: str
    fs: Any = field(repr=False, compare=False)
    root: str = field(repr=False)
    folder: bool = False
    size: int | None = None
    modified: float | None = None

    @classmethod
    def of(cls, uri: str) -> Remote:
        """Opens the store. Raises UsageError, UnreachableError."""
        scheme, _, rest = uri.partition("://")
        rest, question, options = rest.partition("?") if scheme in _WITH_OPTIONS else (rest, "", "")
        host, _, key = rest.partition("/")
        if ":" in host.rpartition("@")[0]:
            raise UsageError(
                "Access keys do not belong in the name of a corpus "
                f"({scheme}://...@{host.rpartition('@')[2]}): "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if scheme in _WITH_OPTIONS and not host:
            raise UsageError(f"{uri!r} does not name a bucket; write it as {scheme}://BUCKET/KEY.")
        bucket, options = f"{scheme}://{host}", question + options
        fs, root = file_system(bucket + options, local=False)
        return cls(bucket, key.rstrip("/"), options, fs, root)

    def __str__(self) -> str:
        return f"{self.name}{self.options}"

    @property
    def name(self) -> str:
        """The address without its options, as people write it."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def inside(self, path: str) -> Remote:
        """The folder at this path inside this one; itself for an empty path."""
        return replace(self, key="/".join(filter(None, (self.key, path))), folder=True)

    @property
    def base(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def _path(self) -> str:
        return f"{self.root.rstrip('/')}/{self.key}" if self.key else self.root

    def look(self) -> Remote | None:
        """This entry with its type and size; None if neither a file nor a folder has this name."""
        from pyarrow import fs

        with self._mapped():
            info = patiently(self.name, partial(self.fs.get_file_info, self._path))
        if info.type == fs.FileType.NotFound:
            return None
        folder = info.type == fs.FileType.Directory
        return replace(self, folder=folder, size=None if folder else info.size, modified=_modified(info))

    def listing(self) -> list[Remote]:
        """The entries directly in this folder, by name."""
        from pyarrow import fs

        with self._mapped():
            selector = fs.FileSelector(self._path, allow_not_found=True)
            infos = patiently(self.name, partial(self.fs.get_file_info, selector))
        prefix = f"{self.key}/" if self.key else ""
        entries = [
            replace(
                self,
                key=f"{prefix}{info.base_name}",
                folder=info.type == fs.FileType.Directory,
                size=info.size if info.type == fs.FileType.File else None,
                modified=_modified(info),
            )
            for info in infos
        ]
        return sorted(entries, key=lambda entry: entry.base)

    def matches(self) -> Iterator[Remote]:
        """The entries that match: `*` and `[...]` within a name, `**` for any depth of folders."""
        parts = self.key.split("/")
        plain = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
        yield from _matching(replace(self, key="/".join(parts[:plain]), folder=True), parts[plain:])

    @property
    def pattern(self) -> bool:
        return bool(_MAGIC.search(self.key))

    def stream(self) -> AbstractContextManager[BinaryIO]:
        """The file's bytes, in order. Reading raises OSError if they break off."""
        open_stream = partial(self.fs.open_input_stream, self._path, compression=None, buffer_size=_BUFFER)
        return cast(
            "AbstractContextManager[BinaryIO]", _Patient(self.name, patiently(self.name, open_stream))
        )

    def random(self) -> Any:
        """The file for random access."""
        return _Patient(self.name, patiently(self.name, partial(self.fs.open_input_file, self._path)))

    def _mapped(self) -> AbstractContextManager[None]:
        return mapped(self.name, local=False)


def _modified(info: Any) -> float | None:
    nanoseconds = info.mtime_ns
    return None if nanoseconds is None else nanoseconds / 1e9


class _Patient(io.RawIOBase):
    """A file of an object store that gives up a store from which hardly anything comes."""

    def __init__(self, name: str, source: Any) -> None:
        self._name, self._source = name, source

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._source.seekable())

    def read(self, size: int = -1) -> bytes:
        return bytes(patiently(self._name, partial(self._source.read, None if size < 0 else size)))

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        self._source.seek(position, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._source.tell())

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def _matching(folder: Remote, parts: list[str]) -> Iterator[Remote]:
    """The entries below a folder that match these pattern parts; hidden ones only if the part has a dot."""
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
