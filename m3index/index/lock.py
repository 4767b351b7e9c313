"""Allows one writer at a time: a file lock for the processes of this host, and a lease in the collection for
other hosts.

The lease is not a mutex, because Milvus has no compare-and-set. Correctness depends on the keys and the order
of writes; the lease only keeps two runs from doing the same work.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from uuid import uuid4

from m3index import folders
from m3index.errors import CollectionNotFoundError, LockedError, M3IndexError, UsageError
from m3index.index.collection import Collection
from m3index.index.unchanged import forget
from m3index.output import open_lock
from m3index.store.base import Store
from m3index.store.options import is_server

LEASE_SECONDS = 180.0
RENEW_SECONDS = 60.0
PROVED_SECONDS = 90.0
"""How old a renewal may be at a write. A lease that is older is read back first: another host may take it
LEASE_SECONDS after the renewal."""

ENDING_SECONDS = 5.0
"""How long a run may take to give up its lease if the store is silent. The lease then expires by itself."""

SETTLE_SECONDS = 2.0
RETRY_SECONDS = 0.5
FREE = "free"

_writing: set[str] = set()
"""The `owner` ids of the runs in progress in this process."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The run that holds the lock file or the lease. expires: a Unix time. machine: the boot and the process
    namespace in which `pid` is valid; empty if unknown."""

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
        """False if the lease has expired or if its run has ended on this machine."""
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
    """The boot and process namespace of this process; empty if the system does not reveal them."""
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
    """Whether the URI is a local database, which only one process can open, so it needs no lease."""
    return not is_server(uri)


def uptime() -> float:
    """Seconds of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class WriteLock:
    """The lock and the lease of a writing run. `lost` is True once another run has taken the lease.

    A lease is worth something only at the moment of a write, since the process may be stopped between any two
    lines of code. Therefore the store calls `prove` right before each write (`Store.fence`).
    """

    def __init__(self, store: Store, me: Holder, deadline: float | None) -> None:
        self._store = store
        self._me = me
        self._deadline = deadline
        self._name: str | None = None
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None
        self._alias = ""
        self._proved = 0.0
        self.lost = False

    def lease(self, open_target: Callable[[], Collection], *, rewrites: Sequence[str] | None) -> Collection:
        """Opens a collection and takes its lease; reopens it if the alias moved in the meantime.

        rewrites: the sources of which the run may change rows, None for all: what the last `sync` recorded of
        them (`index.unchanged`) is forgotten first. Raises LockedError if another run still has the lease at
        the deadline, and the errors of `open_target`.
        """
        target = self._leased(open_target)
        forget(self._store, target.name, rewrites)
        return target

    def _leased(self, open_target: Callable[[], Collection]) -> Collection:
        target = open_target()
        if is_local(self._store.uri):
            return target
        while True:
            try:
                mine = self._try(target.name)
            except CollectionNotFoundError:  # a first run that wrote nothing has removed it
                target = open_target()
                continue
            if mine:
                self._name = target.name
                again = open_target()
                if again.name == target.name:
                    break
                self._free()
                target = again
            elif self._deadline is None or time.monotonic() >= self._deadline:
                raise locked(current_lease(self._store, target.name), target.alias)
            else:
                time.sleep(RETRY_SECONDS)
                target = open_target()
        self._renewer = threading.Thread(
            target=self._renew, args=(target.name,), name="m3index-lease", daemon=True
        )
        self._renewer.start()
        self._alias = again.alias
        self._store.fence(again.alias, self.prove)
        return again

    def _try(self, name: str) -> bool:
        if current_lease(self._store, name) is not None:
            return False
        self._write(name)
        time.sleep(SETTLE_SECONDS)
        return self._is_mine(name)

    def _write(self, name: str) -> None:
        if self._ended.is_set():
            return
        self._proved = uptime()  # of the moment before it is sent: the lease never seems younger than it is
        holder = Holder(**(asdict(self._me) | {"expires": time.time() + LEASE_SECONDS}))
        self._store.set_properties(name, {"lease": holder.to_json()})

    def _is_mine(self, name: str) -> bool:
        holder = Holder.from_json(self._store.properties(name).get("lease", ""))
        return holder is not None and holder.owner == self._me.owner

    def _renew(self, name: str) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with suppress(M3IndexError):  # an unreachable store ends the run elsewhere
                if not self._take_again(name):
                    return

    def _take_again(self, name: str) -> bool:
        """Reads the lease back and renews it. False, and `lost`, if it is another run's.

        Two threads may do so at once: to renew one's own lease twice is harmless, and `lost` stays.
        """
        if not self.lost and not self._is_mine(name):
            self.lost = True
        if not self.lost:
            self._write(name)
        return not self.lost

    def check(self) -> None:
        """Raises LockedError if the lease is known to be lost."""
        if self.lost:
            raise LockedError(
                f"Another run has taken the lease of {self._alias!r}. Run again after it has finished."
            )

    def prove(self) -> None:
        """Raises LockedError unless this run holds the lease now.

        Either it was renewed a short while ago, by a clock that goes on while a machine is suspended, or it
        is read back here and renewed.
        """
        self.check()
        if self._name is not None and uptime() - self._proved > PROVED_SECONDS:
            self._take_again(self._name)
            self.check()

    def release(self) -> None:
        self._store.fence(self._alias, None)
        end = time.monotonic() + ENDING_SECONDS
        self._stop_renewing()
        with self._store.limit(end - time.monotonic()):
            self._free()

    def forget(self) -> None:
        """Gives up the lease without writing to the collection, which is about to be dropped."""
        self._stop_renewing()
        self._name = None

    def _stop_renewing(self) -> None:
        self._ended.set()
        if self._renewer is not None:
            self._renewer.join(ENDING_SECONDS)

    def _free(self) -> None:
        if self._name is not None and not self.lost:
            with suppress(M3IndexError):  # it expires by itself
                if self._is_mine(self._name):
                    self._store.set_properties(self._name, {"lease": FREE})
        self._name = None


def _user() -> str:
    """The user's name, or the number: a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


@contextmanager
def hold(store: Store, alias: str, retry: float | None, command: str) -> Iterator[WriteLock]:
    """Holds the file lock of (uri, alias) on this host during a run; call `lease` on the result.

    Waits up to `retry` seconds, then raises a LockedError that names the holder; None for a command that
    never waits. Raises UsageError if the directory of the lock file belongs to another user, or if the file
    cannot be opened.
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
    deadline = None if retry is None else time.monotonic() + retry
    with _open(lock_path(store.uri, alias)) as file:
        _flock(file, alias, deadline)
        file.truncate(0)
        file.write(me.to_json().encode())
        file.flush()
        lock = WriteLock(store, me, deadline)
        _writing.add(me.owner)
        try:
            yield lock
        finally:
            lock.release()
            _writing.discard(me.owner)
            file.truncate(0)


def _open(path: Path) -> IO[bytes]:
    try:
        return open_lock(path)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise UsageError(
            f"The lock file {path} cannot be opened: {reason}. Remove it, or have its owner remove it, and "
            "run again."
        ) from None


def _flock(file: IO[bytes], alias: str, deadline: float | None) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if deadline is None or time.monotonic() >= deadline:
                file.seek(0)
                raise locked(
                    Holder.from_json(file.read().decode(errors="replace")),
                    alias,
                    can_wait=deadline is not None,
                ) from None
        time.sleep(RETRY_SECONDS)


def locked(holder: Holder | None, name: str, *, can_wait: bool = True) -> LockedError:
    """The error for a collection that another run writes to. can_wait: the command can be told to wait."""
    writer = str(holder) if holder else "another run"
    remedy = "Wait with --retry-lock 5m, or try again later." if can_wait else "Try again after it has ended."
    return LockedError(f"{name!r} is being written by {writer}. {remedy}")


def lock_path(uri: str, alias: str) -> Path:
    """The path of the lock file: in a local database, so that all its users have the same, else in the user's
    runtime directory or in the temporary directory.

    Raises UsageError if another user owns that directory, because links in it could lead anywhere.
    """
    local = Path(uri.removeprefix("file://")).expanduser()
    if is_local(uri) and local.is_dir():
        return local / f"m3index-{alias}.lock"
    folder = folders.runtime()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}, for the lock file, cannot be made: {error.strerror}. Set XDG_RUNTIME_DIR to a folder "
            "that can be written."
        ) from None
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UsageError(
            f"{folder} belongs to another user. Have it removed or set XDG_RUNTIME_DIR to your own directory."
        )
    if uri.startswith("memory:"):
        database = f"{uri}{os.getpid()}"
    else:
        database = str(local.resolve()) if is_local(uri) else uri.rstrip("/")
    digest = hashlib.blake2b(f"{database}\0{alias}".encode(), digest_size=12).hexdigest()
    return folder / f"{alias}-{digest}.lock"


def current_lease(store: Store, name: str) -> Holder | None:
    """The current holder of the lease; None if it is free, has expired, or its process is dead."""
    holder = Holder.from_json(store.properties(name).get("lease", ""))
    return holder if holder is not None and holder.holds else None


def unlock(store: Store, alias: str) -> Holder | None:
    """Frees the lease of a dead run before it expires; returns the holder, None if the lease was free.

    Raises LockedError while a process on this host holds the file lock, which is freed when it ends.
    """
    with hold(store, alias, None, "m3index collections unlock"):
        holder = plan_unlock(store, alias)
        if holder and (name := store.resolve(alias)):
            store.set_properties(name, {"lease": FREE})
    return holder


def plan_unlock(store: Store, alias: str) -> Holder | None:
    """The holder whose lease `unlock` would free. Writes nothing."""
    name = store.resolve(alias)
    return current_lease(store, name) if name else None
