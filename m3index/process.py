"""Child processes that do one kind of work for this one, until this one closes their pipe or ends.

A child runs a function of a module, which is called with a `Channel`. It needs no `__main__` guard, has a
session of its own, so that Ctrl-C reaches this process alone, and ends with this process, however that ends.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from typing import IO, Any

from m3index.errors import M3IndexError

_LENGTH = struct.Struct("<Q")
_START = "from m3index.process import serve; serve({!r})"


class Channel:
    """Two pipes to another process. Messages are pickles, of a few large objects."""

    def __init__(self, read: IO[bytes], write: IO[bytes]) -> None:
        self._read, self._write = read, write

    def send(self, message: Any) -> None:
        self.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def receive(self) -> Any:
        """The next message. Raises EOFError if the other process has ended."""
        return pickle.loads(self.receive_bytes())  # noqa: S301  (from our own process)

    def send_bytes(self, data: bytes | memoryview) -> None:
        self._write.write(_LENGTH.pack(len(data)))
        self._write.write(data)
        self._write.flush()

    def receive_bytes(self, most: int | None = None) -> bytes:
        """A message that `send_bytes` sent: of a process that must not be trusted with a pickle. Raises
        EOFError also if it is longer than `most` bytes."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if most is not None and length > most:
            raise EOFError
        return self._exactly(length)

    def close(self) -> None:
        self._read.close()
        self._write.close()

    def _exactly(self, count: int) -> bytes:
        data = self._read.read(count)
        if len(data) < count:
            raise EOFError
        return data


class EndedError(M3IndexError):
    """A child process has ended by itself. status: its exit status, negative for a signal."""

    def __init__(self, purpose: str, status: int) -> None:
        super().__init__(
            f"A process that {purpose} ended (exit status {status}), perhaps for lack of memory. Run again "
            "with fewer --workers, or with --workers 0."
        )
        self.status = status


class Process:
    """A child process. purpose: what it does, for the message of an error."""

    def __init__(self, target: str, purpose: str) -> None:
        """target: `module:function`, called with a Channel; EOFError ends it."""
        self._purpose = purpose
        paths = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._channel = Channel(self._process.stdout, self._process.stdin)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Any) -> None:
        """Raises EndedError if the process has ended."""
        self.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def send_bytes(self, data: bytes | memoryview) -> None:
        """For large objects: nothing is copied. Raises EndedError if the process has ended."""
        try:
            self._channel.send_bytes(data)
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> Any:
        """The next answer; raises it if it is an exception, and EndedError if the process has ended."""
        try:
            answer = self._channel.receive()
        except EOFError:
            raise self._ended() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def receive_bytes(self, most: int) -> bytes:
        """The next answer, if it is bytes, at most so many. Raises EndedError if the process has ended; one
        that would say more is ended."""
        try:
            return self._channel.receive_bytes(most)
        except EOFError:
            self.kill()
            raise self._ended() from None

    def kill(self) -> None:
        """Ends the process whatever it does, also while another thread waits for it."""
        self._process.kill()

    def close(self) -> int:
        """Ends the process and returns its exit status."""
        with suppress(BrokenPipeError):  # it has ended by itself
            self._channel.close()
        return self._process.wait()

    def _ended(self) -> EndedError:
        return EndedError(self._purpose, self._process.wait())


def portable(error: Exception) -> Exception:
    """The error, or what it says if it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def serve(target: str) -> None:
    """What a child runs."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not an answer
    module, _, function = target.partition(":")
    try:
        getattr(import_module(module), function)(Channel(sys.stdin.buffer, answers))
    except (EOFError, BrokenPipeError):
        os._exit(0)  # the other process has closed the pipe, or ended
