"""Servers of strangers for the tests of attacks: they take what they are sent and do not keep to rules."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Handle = Callable[[socket.socket], None]


class Sink:
    """Listens on a free loopback port and keeps everything that it receives. handle: what it does with a
    connection after its first bytes."""

    def __init__(self, handle: Handle | None = None) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.received = b""
        self._handle = handle
        self._open: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.settimeout(5)
            self.received += connection.recv(65536)
            if self._handle is not None:
                self._handle(connection)

    def close(self) -> None:
        self._socket.close()
        for connection in self._open:
            with suppress(OSError):
                connection.close()


@contextmanager
def sink(handle: Handle | None = None) -> Iterator[Sink]:
    server = Sink(handle)
    try:
        yield server
    finally:
        server.close()
