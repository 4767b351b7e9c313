"""What a user names (files, globs, directories, `-`) -> the files to read, in a fixed order."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypeAlias, get_args

from m3index.errors import UsageError

Format: TypeAlias = Literal["jsonl", "parquet", "csv", "tsv", "text"]
FORMATS: tuple[Format, ...] = get_args(Format)
STDIN = "-"

SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "text",
}
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class File:
    """A file to read.

    name: the id of its document where it is plain text: the path inside the directory that was
    given, or the path of a file as it was given. size: bytes on disk; None for a pipe.
    """

    path: str
    name: str
    format: Format
    compression: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a directory or a glob holds and nobody reads, with the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A part of a directory that could not be looked into."""

    path: str
    reason: str


Entry: TypeAlias = File | Skipped | Unlisted


class Places:
    """The paths as given, checked; `walk` lists their files in the order given, each directory sorted.

    Nothing is listed ahead: of a directory only the names of the level at hand are held.
    Raises UsageError for what is not there or cannot be read in that format.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], format: str | None = None) -> None:  # noqa: A002
        if format is not None and format not in FORMATS:
            raise UsageError(f"There is no format {format!r}; there are {', '.join(FORMATS)}.")
        if not paths:
            raise UsageError("Nothing to read: name at least one file, directory, glob, or - for stdin.")
        self._format: Format | None = format
        self._roots = [root for path in paths for root in self._expand(os.fspath(path))]
        if sum(root is _stdin for root, _ in self._roots) > 1:
            raise UsageError("Standard input (-) can be read only once; name it once.")

    def walk(self) -> Iterator[Entry]:
        for list_root, path in self._roots:
            yield from list_root(path, self._format)

    @property
    def stdin(self) -> bool:
        return any(root is _stdin for root, _ in self._roots)

    def _expand(self, path: str) -> Iterator[tuple[_Lister, str]]:
        if path == STDIN:
            if self._format in ("parquet", "text"):
                raise UsageError(
                    f"The format {self._format} cannot be read from stdin; save it to a file first."
                )
            yield _stdin, path
        elif os.path.lexists(path):
            yield self._root(path)
        elif matches := sorted(glob.iglob(path, recursive=True)):
            for match in matches:
                yield _directory if os.path.isdir(match) else _found, match
        else:
            raise UsageError(f"There is no file, directory or match for {path!r}.")

    def _root(self, path: str) -> tuple[_Lister, str]:
        if os.path.isdir(path):
            if not any(isinstance(entry, File | Unlisted) for entry in _directory(path, self._format)):
                raise UsageError(
                    f"The directory {path!r} holds no file to read "
                    f"({' '.join(SUFFIXES)}, also with .gz or .zst); for other names say --input-format."
                )
            return _directory, path
        if not os.path.exists(path):
            raise UsageError(f"{path!r} is a link to nothing.")
        if format_of(path, self._format) is None and not _is_pipe(path):
            raise UsageError(
                f"The name of {path!r} does not say what it holds; say --input-format {'|'.join(FORMATS)}."
            )
        return _file, path


_Lister: TypeAlias = Callable[[str, Format | None], Iterator[Entry]]


def format_of(path: str, asked: Format | None = None) -> tuple[Format, str] | None:
    """(format, compression) by the file's name, or by what was asked for; None where neither says."""
    name = path.lower()
    compression = next((c for c in COMPRESSIONS if name.endswith(c)), "")
    known = asked or SUFFIXES.get(PurePath(name.removesuffix(compression)).suffix)
    if known is None or (known == "parquet" and compression):
        return None
    return known, compression


def _stdin(path: str, asked: Format | None) -> Iterator[Entry]:
    yield File(path, path, asked or "jsonl")


def _file(path: str, asked: Format | None) -> Iterator[Entry]:
    form, compression = format_of(path, asked) or ("jsonl", "")
    name = PurePath(os.path.normpath(path)).as_posix()
    yield File(path, name, form, compression, _size(path))


def _found(path: str, asked: Format | None) -> Iterator[Entry]:
    """A match of a glob: what is not known is skipped, as in a directory."""
    if format_of(path, asked) is None:
        yield Skipped(path, "unknown suffix")
    else:
        yield from _file(path, asked)


def _directory(path: str, asked: Format | None) -> Iterator[Entry]:
    yield from _walk(path, "", asked)


def _walk(top: str, inside: str, asked: Format | None) -> Iterator[Entry]:
    try:
        with os.scandir(os.path.join(top, inside)) as entries:
            found = sorted(entries, key=lambda e: e.name)
    except OSError as error:
        yield Unlisted(os.path.join(top, inside), error.strerror or str(error))
        return
    for entry in found:
        name = f"{inside}{entry.name}"
        if entry.name.startswith("."):
            yield Skipped(entry.path, "hidden")
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(top, f"{name}/", asked)
        elif entry.is_dir():
            yield Skipped(entry.path, "a link to a directory")
        elif (known := _format_in_directory(entry.name, asked)) is None:
            yield Skipped(entry.path, "unknown suffix" if asked is None else f"not {asked} by its name")
        elif _is_pipe(entry.path):
            yield Skipped(entry.path, "not a regular file")
        else:
            yield File(entry.path, name, *known, _size(entry.path))


def _format_in_directory(name: str, asked: Format | None) -> tuple[Format, str] | None:
    """With a format asked for, names without any suffix (part-00000) count as being of it."""
    by_name = format_of(name)
    if asked is None or (by_name and by_name[0] == asked):
        return by_name
    compression = next((c for c in COMPRESSIONS if name.endswith(c)), "")
    return format_of(name, asked) if not PurePath(name.removesuffix(compression)).suffix else None


def _is_pipe(path: str) -> bool:
    """Also a socket or a device: whatever has neither a size nor a name that says something."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _size(path: str) -> int | None:
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else None
