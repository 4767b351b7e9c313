"""The cache of prepared models: forms of a model that are made on this machine, once, out of its files.

A form appears whole or not at all: it is built beside its place and renamed when all of it is on the disk.
Of several processes one builds it, and the others wait.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from m3index import folders
from m3index.encoder.layout import sample
from m3index.errors import StoppedError, UsageError

_log = logging.getLogger(__name__)
_FORM = re.compile(r"(?P<name>[\w.-]*\w)-(?P<key>[0-9a-f]{16})")
_PARTIAL = re.compile(r"\.(?P<name>[\w.-]*\w)\.[0-9a-f]{32}\.partial")


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """One form of a model. name: the model. key: 16 hexadecimal digits of everything that determines the
    form: the digests of the source files, the version of the code that makes it."""

    name: str
    key: str

    @property
    def directory(self) -> Path:
        return cache_folder() / f"{self.name}-{self.key}"

    @property
    def size(self) -> int:
        """In bytes."""
        return size(self.directory)


def size(directory: Path) -> int:
    """The bytes of all files of a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def cache_folder() -> Path:
    """`m3index/models` in the user's cache directory: $XDG_CACHE_HOME, else ~/.cache."""
    return folders.cache() / "models"


def prepare(form: PreparedModel, build: Callable[[Path], None], announcement: str, size: int = 0) -> Path:
    """The directory of the form; if it is not there yet, `build` fills one that becomes it.

    announcement: what is logged before building. size: the bytes that it will have. Raises UsageError if the
    cache cannot be written, StoppedError if its disk is full, and the errors of `build`.
    """
    if form.directory.is_dir():
        return form.directory
    _check_room(size)
    with _writing(), _locked(form.name):
        if not form.directory.is_dir():
            _clear_partials(form.name)
            _log.info(announcement)
            partial = _partial(form)
            partial.mkdir()
            try:
                build(partial)
                _sync(partial)
                partial.rename(form.directory)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            _sync_entry(form.directory.parent)
    return form.directory


def prepare_if_possible(
    form: PreparedModel, build: Callable[[Path], None], announcement: str, size: int = 0
) -> bool:
    """`prepare`; False, with a warning, if the cache cannot be written."""
    try:
        prepare(form, build, announcement, size)
    except (UsageError, StoppedError) as error:
        _log.warning("%s Until then, the model loads slowly; --no-prepare leaves it as it is.", error)
        return False
    return True


def key(text: str, sources: Iterable[Path]) -> str:
    """The key of a form. text: what else determines it. It digests what the encoder's identity does of the
    source files, and when they were last changed: to read all of them would cost more than the form saves."""
    digest = hashlib.blake2b(text.encode())
    for path in sources:
        sample(path, digest)
        digest.update(str(path.stat().st_mtime_ns).encode())
    return digest.hexdigest()[:16]


def model_name(root: Path) -> str:
    """The name of a model's forms: that of the directory, or of the repository in the hub's cache
    (models--ORG--NAME/snapshots/COMMIT), in letters that the cache takes. A form of a form has its name."""
    if root.parent == cache_folder() and (form := _FORM.fullmatch(root.name)):
        return form["name"]
    name = root.parents[1].name.rpartition("--")[2] if root.parent.name == "snapshots" else root.name
    return re.sub(r"[^A-Za-z0-9_]+", "-", name)[:64].strip("-") or "model"


def prepared() -> list[PreparedModel]:
    """The forms in the cache, by name."""
    names = sorted(path.name for path in _entries())
    return [PreparedModel(found["name"], found["key"]) for n in names if (found := _FORM.fullmatch(n))]


def remove(form: PreparedModel) -> None:
    """Removes a form. A process that has its files open keeps them. Raises UsageError."""
    with _writing(), _locked(form.name):
        _clear_partials(form.name)
        if form.directory.is_dir():
            partial = _partial(form)
            form.directory.rename(partial)  # a form that is half removed must not be in its place
            shutil.rmtree(partial)


def clear() -> None:
    """Removes what killed processes left half made. Waits for those that are at work. Raises UsageError."""
    for name in sorted({name for name, _ in _partials()}):
        with _writing(), _locked(name):
            _clear_partials(name)


def _check_room(size: int) -> None:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    if shutil.disk_usage(existing).free < size:
        raise StoppedError(f"{folder}: the disk has no room for {size / 1e6:,.0f} MB. Free some space.")


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoppedError(f"{cache_folder()}: the disk is full. Free some space and run again.") from e
        raise UsageError(
            f"{cache_folder()} cannot be written: {e.strerror}. Set XDG_CACHE_HOME to a directory that can."
        ) from e


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Holds the lock of this name among all processes. Its file stays, because one that is removed can be
    held by two: by one through the old file, and by another through the new."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("Another process is preparing the model %s; waiting for it.", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _entries() -> list[Path]:
    folder = cache_folder()
    return list(folder.iterdir()) if folder.is_dir() else []


def _partial(form: PreparedModel) -> Path:
    return form.directory.with_name(f".{form.name}.{uuid.uuid4().hex}.partial")


def _partials() -> list[tuple[str, Path]]:
    """The name of the model, and the directory, of each form that is not, or no longer, in its place."""
    return [(found["name"], path) for path in _entries() if (found := _PARTIAL.fullmatch(path.name))]


def _clear_partials(name: str) -> None:
    """Removes what killed processes left. Only the holder of the lock has a partial form of this name."""
    for owner, partial in _partials():
        if owner == name:
            shutil.rmtree(partial)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync_entry(path)
    _sync_entry(folder)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
