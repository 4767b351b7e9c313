"""Milvus Lite as a local path: opening, who holds it, its warnings, the free disk, and release."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import Counter
from pathlib import Path

from m3index.errors import CollectionNotFoundError, LockedError, StoppedError, StoreError, UsageError

MIN_FREE = 256 * 2**20
"""Milvus Lite on a full disk can lose rows that it has acknowledged: it is not brought there.
M3INDEX_MIN_FREE_DISK (bytes) sets another bound."""

_users: Counter[Path] = Counter()
_users_lock = threading.Lock()


class Warnings(logging.Handler):
    """Collects what the engine warns of: it has lost rows, or could not keep its files in order.

    Refused calls (the gRPC adapter's log) reach the caller as errors and are left out.
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
    """A local database that this process holds; the last user of it in the process lets it go."""

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
                "Milvus Lite serves one process at a time: wait until it has ended, or run a server."
            )
        raise StoreError(f"{self.path} cannot be opened: {self.warnings.opening}.")

    def restart(self) -> None:
        """Closes the database and opens it again, which replays its log."""
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(self.path))
        self.address = self._start()

    def check_disk(self, batch_bytes: int) -> None:
        """Raises StoppedError where a write could fill the disk."""
        bound = max(_min_free(), 4 * batch_bytes)
        free = shutil.disk_usage(self.path).free
        if free < bound:
            raise StoppedError(
                f"Only {free // 2**20} MB are free on the disk of {self.path}; m3index stops at "
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
    asked = os.environ.get("M3INDEX_MIN_FREE_DISK", str(MIN_FREE))
    if not asked.isdecimal():
        raise UsageError(f"M3INDEX_MIN_FREE_DISK is a number of bytes, not {asked!r}.")
    return int(asked)


def check_path(uri: str, *, create: bool = True) -> Path:
    """The database's path, its parent made where it may be. Raises UsageError for what cannot be one,
    CollectionNotFoundError for one that is not there and not to be made."""
    path = Path(uri.removeprefix("file://")).expanduser().absolute()
    if path.suffix != ".db":
        raise UsageError(f"A local database's name ends in .db: {uri!r} does not. Try {str(path) + '.db'!r}.")
    if path.is_file():
        raise UsageError(
            f"{path} is a file; a database of Milvus Lite 3 is a folder. Give another path and ingest anew."
        )
    if path.is_dir() and any(path.iterdir()) and not (path / "collections").is_dir():
        raise UsageError(f"{path} is a folder with other things in it, not a database. Give another path.")
    if not create and not path.exists():
        raise CollectionNotFoundError(
            f"There is no database {path}. Make it with `m3index ingest`, or name another with --uri."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {path.parent} cannot be made: {error.strerror}.") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: permission denied.")
    return path


def holder(path: Path) -> str:
    """The process that has the database's lock file open, as people name it; Linux tells it."""
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
