"""One writer at a time: a lock among the processes of this host, and a lease in the collection
against other hosts. The lease is no mutex (Milvus has no compare-and-set): correctness rests on the
keys and the order of writes, the lease keeps two runs from doing the same work."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from uuid import uuid4

from m3index.errors import LockedError, M3IndexError, UsageError
from m3index.index.collection import Target
from m3index.store.base import Store

LEASE_SECONDS = 180.0
RENEW_SECONDS = 60.0
SETTLE_SECONDS = 2.0
RETRY_SECONDS = 0.5
FREE = "free"

_writing: set[str] = set()
"""The owners among the runs of this process that have not ended."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes: as the lock file and the lease name it. `expires` is a Unix time; `machine` says
    where `pid` means something: the boot and the process namespace."""

    owner: str
    machine: str
    host: str
    pid: int
    user: str
    command: str
    since: str
    expires: float = 0.0

    def __str__(self) -> str:
        return f"`{self.command}` of {self.user} (process {self.pid} on {self.host}, since {self.since})"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def holds(self) -> bool:
        """Not expired, and not a run that this machine knows to have ended."""
        if self.expires <= time.time():
            return False
        if self.machine == machine() and self.machine and self.pid == os.getpid():
            return self.owner in _writing
        return self.machine != machine() or not self.machine or _alive(self.pid)

    @classmethod
    def from_json(cls, text: str) -> Holder | None:
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


def machine() -> str:
    """Names the processes that can be seen from here; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def is_local(uri: str) -> bool:
    """A local database is held by one process at a time, so that it needs no lease."""
    return not uri.startswith(("http://", "https://", "tcp://", "grpc://", "unix:"))


class WriteLock:
    """What a run holds while it writes. `lost` is True once somebody else has taken the lease."""

    def __init__(self, store: Store, me: Holder, deadline: float) -> None:
        self._store = store
        self._me = me
        self._deadline = deadline
        self._name: str | None = None
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None
        self.lost = False

    def lease(self, open_target: Callable[[], Target]) -> Target:
        """Opens a collection and takes its lease; again, if the alias moved on while it waited.

        Raises LockedError while another run has it, and what `open_target` raises.
        """
        target = open_target()
        if is_local(self._store.uri):
            return target
        while True:
            if self._try(target.name):
                self._name = target.name
                again = open_target()
                if again.name == target.name:
                    break
                self._free()
                target = again
            elif time.monotonic() >= self._deadline:
                raise locked(current_lease(self._store, target.name), target.alias)
            else:
                time.sleep(RETRY_SECONDS)
                target = open_target()
        self._renewer = threading.Thread(
            target=self._renew, args=(target.name,), name="m3index-lease", daemon=True
        )
        self._renewer.start()
        return again

    def _try(self, name: str) -> bool:
        if current_lease(self._store, name) is not None:
            return False
        self._write(name)
        time.sleep(SETTLE_SECONDS)
        return self._mine(name)

    def _write(self, name: str) -> None:
        holder = Holder(**(asdict(self._me) | {"expires": time.time() + LEASE_SECONDS}))
        self._store.set_properties(name, {"lease": holder.to_json()})

    def _mine(self, name: str) -> bool:
        holder = Holder.from_json(self._store.properties(name).get("lease", ""))
        return holder is not None and holder.owner == self._me.owner

    def _renew(self, name: str) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with suppress(M3IndexError):  # an unreachable store ends the run elsewhere
                if not self._mine(name):
                    self.lost = True
                    return
                self._write(name)

    def check(self) -> None:
        """Raises LockedError once the lease is lost."""
        if self.lost:
            raise LockedError(
                f"Another run has taken the lease of {self._name!r}. Run again when it has ended."
            )

    def release(self) -> None:
        self._ended.set()
        if self._renewer is not None:
            self._renewer.join()
        self._free()

    def _free(self) -> None:
        if self._name is not None and not self.lost:
            with suppress(M3IndexError):  # it expires by itself
                if self._mine(self._name):
                    self._store.set_properties(self._name, {"lease": FREE})
        self._name = None


def _user() -> str:
    """A container may run under a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


@contextmanager
def hold(store: Store, alias: str, retry: float, command: str) -> Iterator[WriteLock]:
    """The lock of (uri, alias) on this host, for the time of a run; take the lease inside.

    Waits up to `retry` seconds for it, then raises LockedError that names the holder.
    """
    me = Holder(
        owner=uuid4().hex,
        machine=machine(),
        host=socket.gethostname(),
        pid=os.getpid(),
        user=_user(),
        command=command,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    deadline = time.monotonic() + retry
    with lock_path(store.uri, alias).open("a+") as file:
        _flock(file, alias, deadline)
        file.truncate(0)
        file.write(me.to_json())
        file.flush()
        lock = WriteLock(store, me, deadline)
        _writing.add(me.owner)
        try:
            yield lock
        finally:
            lock.release()
            _writing.discard(me.owner)
            file.truncate(0)


def _flock(file: IO[str], alias: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.seek(0)
                raise locked(Holder.from_json(file.read()), alias) from None
        time.sleep(RETRY_SECONDS)


def locked(holder: Holder | None, name: str) -> LockedError:
    who = str(holder) if holder else "another run"
    return LockedError(
        f"{name!r} is being written by {who}. Wait for it with --retry-lock 5m, or try again later."
    )


def lock_path(uri: str, alias: str) -> Path:
    """The lock file: in the user's runtime directory, or one of ours in the temporary one.

    Raises UsageError where somebody else has made that directory: links in it could lead anywhere.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
    folder = base / f"m3index-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UsageError(
            f"{folder} is not yours. Have it removed, or set XDG_RUNTIME_DIR to a directory of yours."
        )
    if uri.startswith("memory:"):
        where = f"{uri}{os.getpid()}"
    else:
        where = str(Path(uri).expanduser().resolve()) if is_local(uri) else uri.rstrip("/")
    digest = hashlib.blake2b(f"{where}\0{alias}".encode(), digest_size=12).hexdigest()
    return folder / f"{alias}-{digest}.lock"


def current_lease(store: Store, name: str) -> Holder | None:
    """Who has the lease now; None where nobody has, it has expired, or its process is dead."""
    holder = Holder.from_json(store.properties(name).get("lease", ""))
    return holder if holder is not None and holder.holds else None


def unlock(store: Store, alias: str) -> Holder | None:
    """Frees a lease whose holder is dead, before it expires; returns who had it.

    The lock on this host frees itself when its process ends: while it is held, LockedError.
    """
    with hold(store, alias, 0.0, "unlock"):
        holder = plan_unlock(store, alias)
        if holder and (name := store.resolve(alias)):
            store.set_properties(name, {"lease": FREE})
    return holder


def plan_unlock(store: Store, alias: str) -> Holder | None:
    """Whose lease `unlock` would free."""
    name = store.resolve(alias)
    return current_lease(store, name) if name else None
