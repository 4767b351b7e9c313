"""What a user names (files, globs, directories, here or in an object store, `-`) -> the files to read, in a
fixed order."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Literal, TypeAlias, get_args

from m3index.corpus.remote import Remote, is_remote
from m3index.errors import M3IndexError, UsageError

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
    given, or the path of a file as it was given. size: bytes on disk; None for a pipe. remote: where
    it is in an object store.
    """

    path: str
    name: str
    format: Format
    compression: str = ""
    size: int | None = None
    remote: Remote | None = None


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
        names = [os.fspath(path) for path in paths]
        if names.count(STDIN) > 1:
            raise UsageError("Standard input (-) can be read only once; name it once.")
        self.stdin = STDIN in names
        self._roots = [root for name in names for root in self._expand(name)]

    def walk(self) -> Iterator[Entry]:
        for list_root in self._roots:
            yield from list_root()

    def _expand(self, path: str) -> Iterator[_Lister]:
        if path == STDIN:
            if self._format in ("parquet", "text"):
                raise UsageError(
                    f"The format {self._format} cannot be read from stdin; save it to a file first."
                )
            yield partial(_stdin, path, self._format)
        elif is_remote(path):
            yield from self._remote(Remote.of(path))
        elif os.path.lexists(path):
            yield self._root(path)
        elif matches := sorted(glob.iglob(path, recursive=True)):
            for match in matches:
                yield partial(_directory if os.path.isdir(match) else _found, match, self._format)
        else:
            raise UsageError(f"There is no file, directory or match for {path!r}.")

    def _root(self, path: str) -> _Lister:
        if os.path.isdir(path):
            return self._checked(path, partial(_directory, path, self._format))
        if not os.path.exists(path):
            raise UsageError(f"{path!r} is a link to nothing.")
        if format_of(path, self._format) is None and not _is_pipe(path):
            raise _nameless(path)
        return partial(_file, path, self._format)

    def _remote(self, given: Remote) -> Iterator[_Lister]:
        """Raises UnreachableError, NotAuthorisedError too: what cannot be looked at is not nothing."""
        found = given.look()
        if found is None and given.pattern:
            matches = sorted(given.matches(), key=str)
            for match in matches:
                listing = _remote_folder if match.folder else _remote_found
                yield partial(listing, match, self._format)
            if matches:
                return
        if found is None:
            raise UsageError(f"There is no file, directory or match for {given.name!r}.")
        if found.folder:
            yield self._checked(found.name, partial(_remote_folder, found, self._format))
        elif format_of(found.key, self._format) is None:
            raise _nameless(found.name)
        else:
            yield partial(_remote_file, found, self._format)

    def _checked(self, path: str, directory: _Lister) -> _Lister:
        if not any(isinstance(entry, File | Unlisted) for entry in directory()):
            raise UsageError(
                f"The directory {path!r} holds no file to read "
                f"({' '.join(SUFFIXES)}, also with .gz or .zst); for other names say --input-format."
            )
        return directory


def _nameless(path: str) -> UsageError:
    return UsageError(
        f"The name of {path!r} does not say what it holds; say --input-format {'|'.join(FORMATS)}."
    )


_Lister: TypeAlias = Callable[[], Iterator[Entry]]


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
        elif _is_ours(entry):
            yield Skipped(entry.path, "m3index's own")
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(top, f"{name}/", asked)
        elif entry.is_dir():
            yield Skipped(entry.path, "a link to a directory")
        elif (known := _format_in_directory(entry.name, asked)) is None:
            yield Skipped(entry.path, _not_read(asked))
        elif _is_pipe(entry.path):
            yield Skipped(entry.path, "not a regular file")
        else:
            yield File(entry.path, name, *known, _size(entry.path))


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """A Milvus Lite database, whose rows would pass for documents, or a quarantine, whose rows are bad:
    in the folder that a run works in, both lie beside the corpus."""
    if entry.is_dir():
        return entry.name.endswith(".db") and os.path.isdir(os.path.join(entry.path, "collections"))
    return entry.name.startswith("m3index-quarantine") and entry.name.endswith(".jsonl")


def _remote_file(remote: Remote, asked: Format | None) -> Iterator[Entry]:
    form, compression = format_of(remote.key, asked) or ("jsonl", "")
    yield File(str(remote), remote.name, form, compression, remote.size, remote)


def _remote_found(remote: Remote, asked: Format | None) -> Iterator[Entry]:
    if format_of(remote.key, asked) is None:
        yield Skipped(str(remote), "unknown suffix")
    else:
        yield from _remote_file(remote, asked)


def _remote_folder(remote: Remote, asked: Format | None) -> Iterator[Entry]:
    yield from _walk_remote(remote, "", asked)


def _walk_remote(folder: Remote, inside: str, asked: Format | None) -> Iterator[Entry]:
    try:
        found = folder.listing()
    except M3IndexError as error:
        yield Unlisted(str(folder), str(error))
        return
    for entry in found:
        name = f"{inside}{entry.base}"
        if entry.base.startswith("."):
            yield Skipped(str(entry), "hidden")
        elif entry.folder:
            yield from _walk_remote(entry, f"{name}/", asked)
        elif (known := _format_in_directory(entry.base, asked)) is None:
            yield Skipped(str(entry), _not_read(asked))
        else:
            yield File(str(entry), name, *known, entry.size, entry)


def _not_read(asked: Format | None) -> str:
    return "unknown suffix" if asked is None else f"not {asked} by its name"


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
