"""The engine of Milvus Lite for one local database, shared by the processes of this machine.

Milvus Lite lets one process open a database. The first process, the *host*, runs the engine and writes its
port to `m3index.host` in the database. Other processes are *guests*: they find the database locked and use
that port. If the host ends, a guest takes over: it runs the engine at the same port, so that calls in
progress are repeated and succeed. Therefore searches go on while a sync writes, and a sync can run beside a
server.

The host keeps `m3index.host` locked while it runs the engine. A port that a crashed process left there is
therefore never used.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from m3index.addresses import shown_command
from m3index.output import open_lock

HOST_FILE = "m3index.host"
_WAIT_SECONDS = 5.0
_WATCH_SECONDS = 0.2
_CONNECT_SECONDS = 1.0
_GRACE_SECONDS = 2.0


class InUseError(Exception):
    """Another process has the database and is not an m3index process on this machine."""


class SharedEngine:
    """The engine of a database, here or in another process. Raises InUseError, and whatever Milvus Lite
    raises for a database that it cannot open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        atexit.register(self.close)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server: Any = None
        self._database: Any = None
        self._host_file: IO[bytes] | None = None
        self.port = 0
        self._open()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_host(self) -> bool:
        """Whether this process runs the engine."""
        return self._server is not None

    def restart(self) -> None:
        """Closes the database and opens it again at the same port. Only the host can."""
        with self._lock:
            self._stop()
            self._start(self.port)

    def close(self) -> None:
        """Can be called twice."""
        atexit.unregister(self.close)
        self._closed.set()
        with self._lock:
            self._stop()

    def _open(self) -> None:
        """Becomes the host, or a guest: a host that is just starting has no port for a moment."""
        end = time.monotonic() + _WAIT_SECONDS
        while not self._start(0):
            port = _port_of(self._path)
            if port and _answers(port):
                self.port = port
                threading.Thread(target=self._watch, name="m3index-lite", daemon=True).start()
                return
            if time.monotonic() >= end:
                raise InUseError
            time.sleep(_WATCH_SECONDS)

    def _start(self, port: int) -> bool:
        """Runs the engine here; False if another process has the database."""
        from milvus_lite.adapter.grpc.server import start_server_in_thread
        from milvus_lite.exceptions import DataDirLockedError

        if port and _answers(port):
            return False
        # One worker: Lite swaps its write buffer without a lock, and a read during the swap would miss rows.
        try:
            started = start_server_in_thread(str(self._path), port=port, max_workers=1)
        except DataDirLockedError:
            return False
        self._server, self._database, self.port = started
        self._host_file = _publish(self._path, self.port)
        return True

    def _stop(self) -> None:
        if self._host_file is not None:
            self._host_file.close()  # and its lock is free: from now on no process takes the port from it
            self._host_file = None
        server, database, self._server, self._database = self._server, self._database, None, None
        if server is not None:
            server.stop(grace=_GRACE_SECONDS).wait()
            database.close()

    def _watch(self) -> None:
        """Takes over when the host has ended."""
        while not self._closed.wait(_WATCH_SECONDS):
            if _port_of(self._path):
                continue
            with self._lock, suppress(Exception):  # the calls report what is wrong
                if not self._closed.is_set() and self._start(self.port):
                    return


def _publish(path: Path, port: int) -> IO[bytes] | None:
    """Writes and locks the file of the host; None if that is not possible: then there are no guests."""
    try:
        file = open_lock(path / HOST_FILE)
        fcntl.flock(file, fcntl.LOCK_EX)  # free, but for the moment in which another process looks
        file.truncate(0)
        file.write(str(port).encode())
        file.flush()
    except OSError:
        return None
    return file


def _port_of(path: Path) -> int:
    """The port of the host; 0 if no process hosts the database."""
    try:
        with (path / HOST_FILE).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or b"0")
    except (OSError, ValueError):
        pass
    return 0


def _answers(port: int) -> bool:
    """Whether the port can be reached from here: the host may be in a container of its own."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), _CONNECT_SECONDS):
        return True
    return False


def holder(path: Path) -> str:
    """The process that has the database's lock file open, in words; known only on Linux."""
    lock = str(path.resolve() / "LOCK")
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            if not any(os.readlink(fd) == lock for fd in (process / "fd").iterdir()):
                continue
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        return f"process {process.name} ({shown_command(words)})"
    return "another process"
