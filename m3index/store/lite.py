"""Milvus Lite at a local path: opening, warnings, free disk space, and release."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from pathlib import Path

from m3index.errors import CollectionNotFoundError, LockedError, StoppedError, StoreError, UsageError
from m3index.store.lite_engine import InUseError, SharedEngine, holder

MIN_FREE = 256 * 2**20
"""The free disk space, in bytes, below which nothing is written: on a full disk Milvus Lite can lose rows
that it has acknowledged. M3INDEX_MIN_FREE_DISK (bytes) sets another limit."""

_engines: dict[Path, tuple[SharedEngine, int]] = {}
"""The engines of this process with the numbers of their users, by path."""

_engines_lock = threading.Lock()


class Warnings(logging.Handler):
    """Collects the engine's warnings: it lost rows, or could not keep its files in order.

    Refused calls (the gRPC adapter's log) are left out, because they reach the caller as errors.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        logging.getLogger("milvus_lite").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("milvus_lite.adapter"):
            self.messages.append(record.getMessage())

    def remove(self) -> None:
        logging.getLogger("milvus_lite").removeHandler(self)


class LiteFile:
    """A local database that this process uses, alone or with other processes of this machine."""

    def __init__(self, uri: str, *, create: bool = True) -> None:
        self.path = check_path(uri, create=create)
        self.warnings = Warnings()
        try:
            self._engine = self._start()
        except BaseException:
            self.warnings.remove()
            raise
        self._held = True

    @property
    def address(self) -> str:
        return self._engine.address

    def _start(self) -> SharedEngine:
        with _engines_lock:
            if found := _engines.get(self.path):
                _engines[self.path] = (found[0], found[1] + 1)
                return found[0]
            try:
                engine = SharedEngine(self.path)
            except InUseError:
                raise LockedError(
                    f"{self.path} is in use by {holder(self.path)}, which does not share it. Wait until that "
                    "process ends, or use a Milvus server."
                ) from None
            except Exception as error:  # whatever the engine finds in its files
                raise StoreError(f"{self.path} cannot be opened: {error}.") from error
            _engines[self.path] = (engine, 1)
            return engine

    def restart(self) -> None:
        """Closes the database and opens it again, which replays its log, if this process hosts it."""
        if self._engine.is_host:
            self._engine.restart()

    def check_disk(self, batch_bytes: int) -> None:
        """Raises StoppedError if a write could fill the disk."""
        bound = max(_min_free(), 4 * batch_bytes)
        free = shutil.disk_usage(self.path).free
        if free < bound:
            raise StoppedError(
                f"Only {free // 2**20} MB are free on the disk of {self.path}; m3index stops below "
                f"{bound // 2**20} MB, before Milvus Lite can lose data. Free some space and run again."
            )

    def release(self) -> None:
        if not self._held:
            return
        self._held = False
        self.warnings.remove()
        with _engines_lock:
            engine, users = _engines[self.path]
            if users > 1:
                _engines[self.path] = (engine, users - 1)
                return
            del _engines[self.path]
            engine.close()


def _min_free() -> int:
    text = os.environ.get("M3INDEX_MIN_FREE_DISK", str(MIN_FREE))
    if not text.isdecimal():
        raise UsageError(f"M3INDEX_MIN_FREE_DISK must be a number of bytes, not {text!r}.")
    return int(text)


def check_path(uri: str, *, create: bool = True) -> Path:
    """The database's path; creates its parent folder. Raises UsageError if the path cannot be a database,
    CollectionNotFoundError if it does not exist and `create` is False."""
    path = Path(uri.removeprefix("file://")).expanduser().absolute()
    if path.suffix != ".db":
        raise UsageError(
            f"The name of a local database must end in .db: {uri!r} does not. Try {str(path) + '.db'!r}."
        )
    if path.is_file():
        raise UsageError(
            f"{path} is a file, but a Milvus Lite 3 database is a folder. Choose another path, ingest again."
        )
    if path.is_dir() and any(path.iterdir()) and not (path / "collections").is_dir():
        raise UsageError(f"{path} is a folder with other things in it, not a database. Choose another path.")
    if not create and not path.exists():
        raise CollectionNotFoundError(
            f"There is no database {path}. Create it with `m3index ingest`, or choose another with --uri."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {path.parent} cannot be made: {error.strerror}.") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: permission denied.")
    return path
