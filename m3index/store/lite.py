"""Milvus Lite at a local path: opening, the process that holds it, warnings, free disk space, and release."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import Counter
from pathlib import Path

from m3index.errors import CollectionNotFoundError, LockedError, StoppedError, StoreError, UsageError

MIN_FREE = 256 * 2**20
"""The free disk space, in bytes, below which nothing is written: on a full disk Milvus Lite can lose rows
that it has acknowledged. M3INDEX_MIN_FREE_DISK (bytes) sets another limit."""

_users: Counter[Path] = Counter()
_users_lock = threading.Lock()


class Warnings(logging.Handler):
    """Collects the engine's warnings: it lost rows, or could not keep its files in order.

    Refused calls (the gRPC adapter's log) are left out, because they reach the caller as errors.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.locked = False
        logging.getLogger("milvus_lite").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "milvus_lite.server_manager":
            cause = record.exc_info[1] if record.exc_info else None
            self.locked = type(cause).__name__ == "DataDirLockedError"
            self.opening = str(cause or record.getMessage())
        elif not record.name.startswith("milvus_lite.adapter"):
            self.messages.append(record.getMessage())

    def remove(self) -> None:
        logging.getLogger("milvus_lite").removeHandler(self)

    opening = ""


class LiteFile:
    """A local database that this process holds. Its last user in the process releases it."""

    def __init__(self, uri: str, *, create: bool = True) -> None:
        self.path = check_path(uri, create=create)
        self.warnings = Warnings()
        self.address = self._start()
        with _users_lock:
            _users[self.path] += 1
        self._held = True

    def _start(self) -> str:
        from milvus_lite.server_manager import server_manager_instance

        address = server_manager_instance.start_and_get_uri(str(self.path))
        if address is not None:
            return str(address)
        self.warnings.remove()
        if self.warnings.locked:
            raise LockedError(
                f"{self.path} is in use by {holder(self.path)}. "
                "Milvus Lite serves one process at a time: wait until that one ends, or use a Milvus server."
            )
        raise StoreError(f"{self.path} cannot be opened: {self.warnings.opening}.")

    def restart(self) -> None:
        """Closes the database and opens it again, which replays its log."""
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(self.path))
        self.address = self._start()

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
        with _users_lock:
            _users[self.path] -= 1
            if _users[self.path] > 0:
                return
            del _users[self.path]
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(self.path))


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


def holder(path: Path) -> str:
    """The process that has the database's lock file open, in words; known only on Linux."""
    lock = str(path.resolve() / "LOCK")
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            if not any(os.readlink(fd) == lock for fd in (process / "fd").iterdir()):
                continue
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
        except OSError:
            continue
        return f"process {process.name} ({' '.join(words)[:120]})"
    return "another process"
