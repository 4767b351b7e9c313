"""Paths from the user (files, globs, directories, local or in an object store, `-`) -> the files to read, in
a fixed order, and what lies there and is not read, with the reason."""

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
from m3index.corpus.selection import ALL, Selection, normal
from m3index.documents.kinds import EXTRA, PARSED, is_installed
from m3index.errors import M3IndexError, UsageError
from m3index.wording import to_install

STDIN = "-"
DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/")
"""What the paths begin with that each process has its own files at."""
UNKNOWN = "unknown type"
_NO_FILE = "not a regular file"
_EMPTY = "empty"
_HIDDEN = "hidden"
_DIRECTORY_LINK = "a link to a directory"
_BROKEN_LINK = "a broken link"
_OURS = "made by m3index"
_NEEDS_EXTRA = f"needs m3index[{EXTRA}]"

SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".xls": "xlsx",
    ".ods": "xlsx",
    ".odt": "odt",
    ".rst": "rst",
    ".epub": "epub",
    ".eml": "eml",
}
COMPRESSIONS = (".gz", ".zst")
TABLES = frozenset({"csv", "tsv", "parquet"})
"""The formats whose files name their columns."""
STREAMED = frozenset({"jsonl", "json", "csv", "tsv"})
"""The formats that standard input can have."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to read.

    name: its path inside the root that the user named, else inside the directory that is read, else inside
    the working directory; for a file that is one document, the document's id. size: bytes on disk; None for
    a pipe. modified: a Unix time; None if it is not known. remote: its place in an object store.
    """

    path: str
    name: str
    format: Format
    compression: str = ""
    size: int | None = None
    modified: float | None = None
    remote: Remote | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has no bytes, and can be whole without: a Parquet or a compressed file is cut off."""
        return self.size == 0 and not self.compression and self.format != "parquet"


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

    Nothing is listed ahead: memory holds only the names of the current directory level. What cannot be read
    is skipped, as long as another path can be. Raises UsageError for a path that does not exist, or if none
    of the paths can be read.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        format: str | None = None,  # noqa: A002
        selection: Selection = ALL,
    ) -> None:
        if format is not None and format not in FORMATS:
            raise UsageError(f"There is no format {format!r}; choose one of {', '.join(FORMATS)}.")
        if not paths:
            raise UsageError("Nothing to read: name at least one file, directory, glob, or - for stdin.")
        self._format: Format | None = format
        self._selection = selection
        names = [os.fspath(path) for path in paths]
        if names.count(STDIN) > 1:
            raise UsageError("Standard input (-) can be read only once; name it once.")
        self.stdin = STDIN in names
        self._alone, self._is_folder = len(names) == 1, False
        self._unreadable: list[UsageError] = []
        self._readable = 0
        self._roots = [root for name in names for root in self._expand(name)]
        if self._unreadable and not self._readable:
            raise self._unreadable[0]

    @property
    def is_one_path(self) -> bool:
        """Whether the user names one file, so that skipping it would read nothing."""
        return self._alone and len(self._roots) == 1 and not self._is_folder

    def walk(self) -> Iterator[Entry]:
        for list_root in self._roots:
            yield from list_root()

    def _expand(self, path: str) -> Iterator[_Lister]:
        if path == STDIN:
            if self._format is not None and self._format not in STREAMED:
                raise UsageError(
                    f"The format {self._format} cannot be read from stdin; save it to a file first."
                )
            self._readable += 1
            yield partial(_stdin, path, self._format)
        elif is_remote(path):
            yield from self._remote(Remote.of(path))
        elif os.path.lexists(path):
            yield self._root(path)
        elif matches := _glob(path):
            self._readable += 1
            for match in matches:
                yield partial(self._directory if os.path.isdir(match) else self._file, match)
            yield partial(self._unmatched, matches)
        else:
            raise UsageError(f"There is no file, directory or match for {path!r}.")

    def _root(self, path: str) -> _Lister:
        if os.path.isdir(path):
            return self._checked(path, partial(self._directory, path))
        lister = partial(self._file, path, is_pipe_read=self._alone or path.startswith(DESCRIPTORS))
        [entry] = lister()
        if isinstance(entry, File):
            self._readable += 1
        elif isinstance(entry, Skipped):
            self._unreadable.append(_unreadable(path, entry.reason))
        return lister

    def _remote(self, given: Remote) -> Iterator[_Lister]:
        """Also raises UnreachableError and NotAuthorisedError: what cannot be read may still exist."""
        entry = given.look()
        if entry is None and given.pattern:
            matches = sorted(given.matches(), key=str)
            for match in matches:
                yield partial(self._remote_folder if match.folder else self._remote_file, match)
            if matches:
                self._readable += 1
                return
        if entry is None:
            raise UsageError(f"There is no file, directory or match for {given.name!r}.")
        if entry.folder:
            yield self._checked(entry.name, partial(self._remote_folder, entry))
            return
        [listed] = self._remote_file(entry)
        if isinstance(listed, File):
            self._readable += 1
        elif isinstance(listed, Skipped):
            self._unreadable.append(_unreadable(entry.name, listed.reason))
        yield partial(self._remote_file, entry)

    def _checked(self, path: str, directory: _Lister) -> _Lister:
        """What a directory holds. One that is empty may be a disk that is not mounted."""
        self._is_folder, found = True, False
        for entry in directory():
            found = True
            if isinstance(entry, File | Unlisted):
                self._readable += 1
                return directory
        self._unreadable.append(
            UsageError(
                f"The directory {path!r} holds no file to read "
                f"({' '.join(SUFFIXES)}, also with .gz or .zst); for other names set --input-format."
            )
        )
        return directory if found else partial(_nothing_in, path)

    # -- on this machine

    def _file(self, path: str, *, is_pipe_read: bool = False) -> Iterator[Entry]:
        """A file that the user, or a pattern, names."""
        name, selection = self._selection.name_of(path), self._selection
        form = format_of(path, self._format)
        pipe = is_pipe(path)
        if pipe and is_pipe_read:
            form = form or ("jsonl", "")
        if not os.path.exists(path):
            yield Skipped(path, name, _BROKEN_LINK)
        elif refusal := selection.refusal(name):
            yield Skipped(path, name, refusal)
        elif pipe and not is_pipe_read:
            yield Skipped(path, name, _NO_FILE)
        elif form is None:
            yield Skipped(path, name, UNKNOWN)
        elif not _is_readable(form[0]):
            yield Skipped(path, name, _NEEDS_EXTRA)
        elif (file := _found(path, name, form)).is_empty and not self._alone:
            yield Skipped(path, name, _EMPTY)
        else:
            yield file

    def _unmatched(self, matches: Sequence[str]) -> Iterator[Entry]:
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
                    yield Unmatched(path, self._selection.name_of(path) + ("/" if entry.is_dir() else ""))

    def _directory(self, path: str) -> Iterator[Entry]:
        yield from _depth_first(partial(self._level, path, self._selection.prefix_of(path)))

    def _level(self, top: str, prefix: str, inside: str) -> Iterator[Entry | str]:
        try:
            with os.scandir(os.path.join(top, inside)) as entries:
                children = sorted(entries, key=lambda e: e.name)
        except OSError as error:
            yield Unlisted(os.path.join(top, inside), error.strerror or str(error))
            return
        for entry in children:
            path, here = entry.path, f"{inside}{entry.name}"
            name = normal(f"{prefix}{here}")
            is_folder = entry.is_dir()
            if is_folder:
                name += "/"
            if refusal := self._refusal(entry.name, name):
                yield Skipped(path, name, refusal)
            elif _made_by_m3index(entry):
                yield Skipped(path, name, _OURS)
            elif entry.is_dir(follow_symlinks=False):
                yield f"{here}/"
            elif is_folder:
                yield Skipped(path, name, _DIRECTORY_LINK)
            elif (form := _format_in_directory(entry.name, self._format)) is None:
                yield Skipped(path, name, self._not_read)
            elif not _is_readable(form[0]):
                yield Skipped(path, name, _NEEDS_EXTRA)
            elif not os.path.exists(path):
                yield Skipped(path, name, _BROKEN_LINK)
            elif is_pipe(path):
                yield Skipped(path, name, _NO_FILE)
            elif (file := _found(path, name, form)).is_empty:
                yield Skipped(path, name, _EMPTY)
            else:
                yield file

    # -- in an object store

    def _remote_file(self, remote: Remote) -> Iterator[Entry]:
        name = self._selection.name_of(remote.key, remote.name)
        form = format_of(remote.key, self._format)
        if refusal := self._selection.refusal(name):
            yield Skipped(str(remote), name, refusal)
        elif form is None:
            yield Skipped(str(remote), name, UNKNOWN)
        elif not _is_readable(form[0]):
            yield Skipped(str(remote), name, _NEEDS_EXTRA)
        else:
            yield File(str(remote), name, *form, remote.size, remote.modified, remote)

    def _remote_folder(self, remote: Remote) -> Iterator[Entry]:
        prefix = self._selection.prefix_of(remote.key, remote.name)
        yield from _depth_first(partial(self._remote_level, remote, prefix))

    def _remote_level(self, top: Remote, prefix: str, inside: str) -> Iterator[Entry | str]:
        folder = top.inside(inside.rstrip("/"))
        try:
            children = folder.listing()
        except M3IndexError as error:
            yield Unlisted(str(folder), str(error))
            return
        for entry in children:
            here = f"{inside}{entry.base}"
            name = normal(f"{prefix}{here}") + ("/" if entry.folder else "")
            if refusal := self._refusal(entry.base, name):
                yield Skipped(str(entry), name, refusal)
            elif entry.folder:
                yield f"{here}/"
            elif (form := _format_in_directory(entry.base, self._format)) is None:
                yield Skipped(str(entry), name, self._not_read)
            elif not _is_readable(form[0]):
                yield Skipped(str(entry), name, _NEEDS_EXTRA)
            elif (file := File(str(entry), name, *form, entry.size, entry.modified, entry)).is_empty:
                yield Skipped(str(entry), name, _EMPTY)
            else:
                yield file

    def _refusal(self, base: str, name: str) -> str:
        """Why an entry of a directory is not read, whatever it is; empty if it may be."""
        hidden = base.startswith(".") and not self._selection.hidden
        return _HIDDEN if hidden else self._selection.refusal(name)

    @property
    def _not_read(self) -> str:
        return UNKNOWN if self._format is None else f"its name is not that of a {self._format} file"


_Lister: TypeAlias = Callable[[], Iterator[Entry]]


def _unreadable(path: str, reason: str) -> UsageError:
    if reason == UNKNOWN:
        return UsageError(
            f"The name of {path!r} does not show its format; set --input-format {'|'.join(FORMATS)}."
        )
    if reason == _NEEDS_EXTRA:
        return UsageError(f"{path!r} needs the extra {EXTRA!r}. {to_install(EXTRA)}")
    return UsageError(f"{path!r} is {reason}.")


def _is_readable(form: Format) -> bool:
    return form not in PARSED or is_installed(form)


def _nothing_in(path: str) -> Iterator[Entry]:
    yield Unlisted(path, "the directory is empty")


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


def _found(path: str, name: str, form: tuple[Format, str]) -> File:
    try:
        status = os.stat(path)
    except OSError:
        return File(path, name, *form, 0)
    regular = stat.S_ISREG(status.st_mode)
    return File(path, name, *form, status.st_size if regular else None, status.st_mtime if regular else None)


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


def _made_by_m3index(entry: os.DirEntry[str]) -> bool:
    """A Milvus Lite database, whose rows would pass for documents, or a quarantine, whose rows are bad.
    Both lie beside the corpus if a run works in its folder."""
    if entry.is_dir():
        return entry.name.endswith(".db") and os.path.isdir(os.path.join(entry.path, "collections"))
    return entry.name.startswith("m3index-quarantine") and entry.name.endswith(".jsonl")


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
