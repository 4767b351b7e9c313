"""Paths from the user (files, globs, directories, local or in an object store, `-`) -> the files to read, in
a fixed order."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TypeAlias

from m3index.corpus.options import FORMATS, Format
from m3index.corpus.remote import Remote, is_remote
from m3index.errors import M3IndexError, UsageError

STDIN = "-"
_NO_FILE = "not a regular file"

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

    name: for plain text, the id of its document: the path inside the directory that the user named, or
    the path of the file as the user named it. size: bytes on disk; None for a pipe. remote: its place
    in an object store.
    """

    path: str
    name: str
    format: Format
    compression: str = ""
    size: int | None = None
    remote: Remote | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry of a directory or a glob that is not read, with the reason.

    name: as that of a File; a folder's ends in a slash.
    """

    path: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unmatched:
    """An entry beside those that a glob matches. name: as that of a File; a folder's ends in a slash."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A part of a directory that could not be listed."""

    path: str
    reason: str


Entry: TypeAlias = File | Skipped | Unmatched | Unlisted


class CorpusFiles:
    """The user's paths, checked. `walk` lists their files in the same order, each directory sorted.

    Nothing is listed ahead: memory holds only the names of the current directory level.
    Raises UsageError for a path that does not exist or cannot be read in that format.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], format: str | None = None) -> None:  # noqa: A002
        if format is not None and format not in FORMATS:
            raise UsageError(f"There is no format {format!r}; choose one of {', '.join(FORMATS)}.")
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
        elif matches := _glob(path):
            for match in matches:
                yield partial(_directory if os.path.isdir(match) else _matched_file, match, self._format)
            yield partial(_unmatched, matches)
        else:
            raise UsageError(f"There is no file, directory or match for {path!r}.")

    def _root(self, path: str) -> _Lister:
        if os.path.isdir(path):
            return self._checked(path, partial(_directory, path, self._format))
        if not os.path.exists(path):
            raise UsageError(f"{path!r} is a broken link.")
        if format_of(path, self._format) is None and not is_pipe(path):
            raise _unknown_format(path)
        return partial(_file, path, self._format)

    def _remote(self, given: Remote) -> Iterator[_Lister]:
        """Also raises UnreachableError and NotAuthorisedError: what cannot be read may still exist."""
        entry = given.look()
        if entry is None and given.pattern:
            matches = sorted(given.matches(), key=str)
            for match in matches:
                listing = _remote_folder if match.folder else _remote_matched_file
                yield partial(listing, match, self._format)
            if matches:
                return
        if entry is None:
            raise UsageError(f"There is no file, directory or match for {given.name!r}.")
        if entry.folder:
            yield self._checked(entry.name, partial(_remote_folder, entry, self._format))
        elif format_of(entry.key, self._format) is None:
            raise _unknown_format(entry.name)
        else:
            yield partial(_remote_file, entry, self._format)

    def _checked(self, path: str, directory: _Lister) -> _Lister:
        if not any(isinstance(entry, File | Unlisted) for entry in directory()):
            raise UsageError(
                f"The directory {path!r} holds no file to read "
                f"({' '.join(SUFFIXES)}, also with .gz or .zst); for other names set --input-format."
            )
        return directory


def _unknown_format(path: str) -> UsageError:
    return UsageError(
        f"The name of {path!r} does not show its format; set --input-format {'|'.join(FORMATS)}."
    )


_Lister: TypeAlias = Callable[[], Iterator[Entry]]


def format_of(path: str, asked: Format | None = None) -> tuple[Format, str] | None:
    """(format, compression) from `asked` or the file's name; None if neither decides."""
    name = path.lower()
    compression = next((c for c in COMPRESSIONS if name.endswith(c)), "")
    form = asked or SUFFIXES.get(PurePath(name.removesuffix(compression)).suffix)
    if form is None or (form == "parquet" and compression):
        return None
    return form, compression


def _stdin(path: str, asked: Format | None) -> Iterator[Entry]:
    yield File(path, path, asked or "jsonl")


def _file(path: str, asked: Format | None) -> Iterator[Entry]:
    form, compression = format_of(path, asked) or ("jsonl", "")
    name = PurePath(os.path.normpath(path)).as_posix()
    yield File(path, name, form, compression, _size(path))


def _matched_file(path: str, asked: Format | None) -> Iterator[Entry]:
    """A file that a glob matches. What is no file of a known format is skipped, as in a directory."""
    name = PurePath(os.path.normpath(path)).as_posix()
    if format_of(path, asked) is None:
        yield Skipped(path, name, "unknown suffix")
    elif is_pipe(path):
        yield Skipped(path, name, _NO_FILE)
    else:
        yield from _file(path, asked)


def _unmatched(matches: Sequence[str]) -> Iterator[Entry]:
    """What lies beside the matches of a glob: a file that was renamed does not match any more."""
    known = {os.path.normpath(match) for match in matches}
    for folder in sorted({os.path.dirname(match) for match in matches}):
        try:
            with os.scandir(folder or ".") as entries:
                children = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            yield Unlisted(folder, error.strerror or str(error))
            continue
        for entry in children:
            path = os.path.normpath(os.path.join(folder, entry.name))
            if path not in known:
                yield Unmatched(path, PurePath(path).as_posix() + ("/" if entry.is_dir() else ""))


def _glob(pattern: str) -> list[str]:
    """What the pattern matches, in order. `**` goes into no links, which could lead back, and what lies in a
    directory that matches itself is read with it."""
    if "**" not in PurePath(pattern).parts:
        return sorted(glob.glob(pattern))
    found: list[str] = []
    for path in sorted(_below(pattern)):
        if not os.path.islink(path) or not os.path.isdir(path):
            folder = found[-1] if found else None
            if folder is None or not (path.startswith(os.path.join(folder, "")) and os.path.isdir(folder)):
                found.append(path)
    return found


def _below(pattern: str) -> set[str]:
    """The matches of a pattern with `**`. One at its end stands for all files."""
    parts = PurePath(pattern).parts
    at = parts.index("**")
    before, after = os.path.join("", *parts[:at]), parts[at + 1 :]
    found: set[str] = set()
    for top in glob.glob(before) if before else [""]:
        for folder in _folders(top):
            rest = os.path.join(glob.escape(folder), *(after or "*"))
            matches = _below(rest) if "**" in after else glob.glob(rest)
            found.update(path for path in matches if after or os.path.isfile(path))
    return found


def _folders(top: str) -> Iterator[str]:
    """A directory and all that are in it, without hidden ones and links."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        yield folder
        with suppress(OSError), os.scandir(folder or ".") as entries:
            inner = (e.name for e in entries if e.name[0] != "." and e.is_dir(follow_symlinks=False))
            waiting.extend(os.path.join(folder, name) for name in inner)


def _directory(path: str, asked: Format | None) -> Iterator[Entry]:
    yield from _depth_first(partial(_level, path, asked))


def _depth_first(level: Callable[[str], Iterator[Entry | str]]) -> Iterator[Entry]:
    """The entries of a directory and of those in it, which `level` yields by name. Not recursive: directories
    can be nested deeper than calls of functions."""
    levels = [level("")]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif isinstance(entry, str):
            levels.append(level(entry))
        else:
            yield entry


def _level(top: str, asked: Format | None, inside: str) -> Iterator[Entry | str]:
    try:
        with os.scandir(os.path.join(top, inside)) as entries:
            children = sorted(entries, key=lambda e: e.name)
    except OSError as error:
        yield Unlisted(os.path.join(top, inside), error.strerror or str(error))
        return
    for entry in children:
        name = f"{inside}{entry.name}"
        if entry.name.startswith("."):
            yield Skipped(entry.path, f"{name}/" if entry.is_dir() else name, "hidden")
        elif _made_by_m3index(entry):
            yield Skipped(entry.path, name, "made by m3index")
        elif entry.is_dir(follow_symlinks=False):
            yield f"{name}/"
        elif entry.is_dir():
            yield Skipped(entry.path, f"{name}/", "a link to a directory")
        elif (form := _format_in_directory(entry.name, asked)) is None:
            yield Skipped(entry.path, name, _not_read(asked))
        elif is_pipe(entry.path):
            yield Skipped(entry.path, name, _NO_FILE)
        else:
            yield File(entry.path, name, *form, _size(entry.path))


def _made_by_m3index(entry: os.DirEntry[str]) -> bool:
    """A Milvus Lite database, whose rows would pass for documents, or a quarantine, whose rows are bad.
    Both lie beside the corpus if a run works in its folder."""
    if entry.is_dir():
        return entry.name.endswith(".db") and os.path.isdir(os.path.join(entry.path, "collections"))
    return entry.name.startswith("m3index-quarantine") and entry.name.endswith(".jsonl")


def _remote_file(remote: Remote, asked: Format | None) -> Iterator[Entry]:
    form, compression = format_of(remote.key, asked) or ("jsonl", "")
    yield File(str(remote), remote.name, form, compression, remote.size, remote)


def _remote_matched_file(remote: Remote, asked: Format | None) -> Iterator[Entry]:
    if format_of(remote.key, asked) is None:
        yield Skipped(str(remote), remote.name, "unknown suffix")
    else:
        yield from _remote_file(remote, asked)


def _remote_folder(remote: Remote, asked: Format | None) -> Iterator[Entry]:
    yield from _depth_first(partial(_remote_level, remote, asked))


def _remote_level(top: Remote, asked: Format | None, inside: str) -> Iterator[Entry | str]:
    folder = top.inside(inside.rstrip("/"))
    try:
        children = folder.listing()
    except M3IndexError as error:
        yield Unlisted(str(folder), str(error))
        return
    for entry in children:
        name = f"{inside}{entry.base}"
        if entry.base.startswith("."):
            yield Skipped(str(entry), f"{name}/" if entry.folder else name, "hidden")
        elif entry.folder:
            yield f"{name}/"
        elif (form := _format_in_directory(entry.base, asked)) is None:
            yield Skipped(str(entry), name, _not_read(asked))
        else:
            yield File(str(entry), name, *form, entry.size, entry)


def _not_read(asked: Format | None) -> str:
    return "unknown suffix" if asked is None else f"its name is not that of a {asked} file"


def _format_in_directory(name: str, asked: Format | None) -> tuple[Format, str] | None:
    """If the user names a format, files without any suffix (part-00000) count as that format."""
    by_name = format_of(name)
    if asked is None or (by_name and by_name[0] == asked):
        return by_name
    compression = next((c for c in COMPRESSIONS if name.endswith(c)), "")
    return format_of(name, asked) if not PurePath(name.removesuffix(compression)).suffix else None


def is_pipe(path: str) -> bool:
    """Also true for a socket or a device: anything with no size and no meaningful name."""
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
