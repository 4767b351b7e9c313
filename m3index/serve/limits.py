"""The limits of a server against clients that are slow, silent or too many, in one place.

A connection waits at most `HEAD_SECONDS` for the head of a request, `BODY_SECONDS` for its body, and
`SEND_SECONDS` until the client reads more of an answer. When there are as many connections as the server
keeps, a new one takes the place of the one that has been waiting longest for its client, so that idle
connections shut nobody out. Requests are answered within the timeout of the store, or refused when too many
are at work.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
BODY_SECONDS = 20.0
SEND_SECONDS = 30.0
KEEP_SECONDS = 30
"""How long a connection is kept open after an answer."""

CONNECTIONS = 512
BACKLOG = 128
"""How many connections wait to be accepted, and are accepted at once."""

REQUESTS = 128
"""How many requests can be at work or wait for a thread."""

BUFFERED = 32 << 20
"""How many bytes the bodies of all requests can have together."""

LOGGED, LOGGED_SECONDS = 20, 10.0
"""How many messages are logged in how many seconds; further ones are only counted."""

_BUSY = b'{"error": "The server has too many connections. Try again in a moment.", "exit": 20}'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 2\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(_BUSY), _BUSY)
)
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def connection_limit() -> int:
    """Half of the files that the process can open, at most `CONNECTIONS`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(8, min(CONNECTIONS, soft // 2))


class WaitingConnections:
    """The connections of a server that wait for their clients, in the order in which they began to. Those
    that never completed a request come first."""

    def __init__(self) -> None:
        self.limit = connection_limit()
        self._new: dict[LimitedConnection, None] = {}
        self._known: dict[LimitedConnection, None] = {}

    def add(self, connection: LimitedConnection) -> None:
        self.discard(connection)
        (self._new if connection.cycle is None else self._known)[connection] = None

    def discard(self, connection: LimitedConnection) -> None:
        self._new.pop(connection, None)
        self._known.pop(connection, None)

    def make_room(self) -> bool:
        """Closes the connection that has been waiting longest. False if none is waiting."""
        for waiting in (self._new, self._known):
            if waiting:
                next(iter(waiting)).drop()
                return True
        return False


class LimitedConnection(H11Protocol):
    """A connection with deadlines. waiting: shared by the connections of a server; see `limited`."""

    waiting: WaitingConnections

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase: object = None
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        if len(self.connections) > self.waiting.limit and not self.waiting.make_room():
            transport.write(_REFUSAL)
            self._close()
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(SEND_SECONDS, self.drop)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def drop(self) -> None:
        """Ends the connection at once."""
        self._forget()
        self.transport.abort()

    def _watch(self) -> None:
        """Sets the deadline of what the connection waits for now, if it waits for its client. Data that
        arrive do not extend it."""
        phase = (self.conn.their_state, self.cycle)
        if phase == self._phase or self.transport.is_closing():
            return
        self._phase = phase
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        seconds = {h11.IDLE: HEAD_SECONDS, h11.SEND_BODY: BODY_SECONDS}.get(self.conn.their_state)
        if seconds is None:
            self.waiting.discard(self)
            return
        if self.conn.their_state is h11.IDLE and self.cycle is not None:
            seconds = KEEP_SECONDS + HEAD_SECONDS  # it may be idle before it sends the next head
        self.waiting.add(self)
        self._deadline = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        head, _ = self.conn.trailing_data
        if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE and head:
            self.transport.write(_TOO_SLOW)
        self._close()

    def _close(self) -> None:
        """Closes the connection, even if the client does not read what is left to send."""
        self.transport.close()
        self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def _forget(self) -> None:
        self.waiting.discard(self)
        for timer in (self._deadline, self._unread):
            if timer is not None:
                timer.cancel()
        self._deadline = self._unread = None


def limited() -> type[LimitedConnection]:
    """The class of the connections of one server."""
    return type("Connection", (LimitedConnection,), {"waiting": WaitingConnections()})


class Bounded(logging.Filter):
    """Lets a number of messages of a logger pass in each span of time, so that clients cannot fill a disk."""

    def __init__(self, count: int = LOGGED, seconds: float = LOGGED_SECONDS) -> None:
        super().__init__()
        self._count, self._seconds = count, seconds
        self._until = 0.0
        self._passed = self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now >= self._until:
            if self._dropped:
                record.msg = (
                    f"{record.getMessage()} ({self._dropped:,} further messages were left out before)"
                )
                record.args = ()
            self._until, self._passed, self._dropped = now + self._seconds, 0, 0
        self._passed += 1
        if self._passed <= self._count:
            return True
        self._dropped += 1
        return False


_LOGGERS = {name: Bounded() for name in ("uvicorn.error", "asyncio", "m3index.serve", "mcp")}


def bound_logs() -> None:
    """Bounds the logs of a server."""
    for name, bound in _LOGGERS.items():
        logging.getLogger(name).addFilter(bound)
