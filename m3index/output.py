"""Files that a run leaves for people and other programs: quarantine, metrics, runs, plots, the configuration.

A regular file appears whole, in place of an earlier one: it is written under a name of its own beside its
place and renamed when it is complete. A symbolic link leads to its target and stays. Whatever is no regular
file (a device, a FIFO, /dev/stdout) is opened and written to, never replaced.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from m3index.errors import StoppedError, UsageError

_DEVICES = ("/dev/", "/proc/")


class OutputFile:
    """One such file. Write to `writable`, then `commit` or `discard`. Making it changes nothing.

    Raises UsageError if the path cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.is_special = _is_special(self.path)
        self.target = self.path if self.is_special else Path(os.path.realpath(self.path))
        self.writable = self.target
        if self.is_special:
            _check_special(self.target)
            return
        self.writable = self.target.with_name(f".{self.target.name}.{uuid.uuid4().hex[:12]}.partial")
        folder = next(parent for parent in self.target.parents if parent.exists())
        if self.target.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UsageError(f"{self.path} cannot be written; choose another path.")
        self._before = _signature(self.target)

    def make_folder(self) -> None:
        """Makes the folder that the file is in."""
        self.target.parent.mkdir(parents=True, exist_ok=True)

    @property
    def was_replaced(self) -> bool:
        """Whether another run has written the file since this object was made."""
        return not self.is_special and _signature(self.target) != self._before

    def commit(self) -> None:
        """Gives the file its name. Raises OSError."""
        if not self.is_special:
            self.writable.replace(self.target)

    def append(self) -> None:
        """Adds what was written to the file that is there, instead of taking its place. Raises OSError."""
        with self.writable.open("rb") as source, self.target.open("ab") as target:
            while block := source.read(1 << 20):
                target.write(block)
        self.discard()

    def discard(self) -> None:
        """Leaves the file as it was."""
        if not self.is_special:
            with suppress(OSError):
                self.writable.unlink()


@contextmanager
def output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path to write to; the file gets its name when the block ends without an error.

    Raises UsageError if it cannot be written, StoppedError if the disk is full.
    """
    file = OutputFile(path)
    try:
        yield file.writable
        file.commit()
    except OSError as error:
        file.discard()
        raise unwritable(file.path, error) from None
    except BaseException:
        file.discard()
        raise


def write_output(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file. Errors as `output`."""
    with output(path) as writable, writable.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def open_lock(path: Path) -> IO[bytes]:
    """The file of a lock, which is made if it is missing. A link in its place is not followed: whoever can
    write to the folder could lead the lock's contents into any file. Raises OSError."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "a+b")


def unwritable(path: Path, error: OSError) -> UsageError | StoppedError:
    """The error to raise for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoppedError(f"{path} cannot be written: {error.strerror}. Make room and run again.")
    return UsageError(f"{path} cannot be written: {error.strerror}.")


def _is_special(path: Path) -> bool:
    if str(path.absolute()).startswith(_DEVICES):
        return True
    try:
        return not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode)
    except OSError:
        return False


def _check_special(path: Path) -> None:
    """A FIFO that nobody reads would stop the run when it is opened."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        reason = "nothing reads from it" if error.errno == errno.ENXIO else error.strerror
        raise UsageError(f"{path} cannot be written: {reason}.") from None


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Which file is there, and when it was written; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
