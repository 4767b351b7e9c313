"""Runs an application until it is stopped; pending requests are completed first."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from m3index.errors import UsageError
from m3index.serve.limits import BACKLOG, KEEP_SECONDS, bound_logs, limited

GRACE = 20

OnListening = Callable[[str], None]
"""Called with the URL once clients can connect."""


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server that logs only errors: a log of requests would reveal what users search for."""
    config = uvicorn.Config(
        app,
        http=limited(),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_SECONDS,
        timeout_graceful_shutdown=GRACE,
    )
    bound_logs()
    return uvicorn.Server(config)


def run_server(server: uvicorn.Server, host: str, port: int, on_listening: OnListening) -> None:
    """Runs until SIGINT or SIGTERM, then completes pending requests. Raises UsageError if it cannot
    listen."""
    bound = _bind(host, port)
    if threading.current_thread() is threading.main_thread():
        # At its end, uvicorn raises the signal again for the handler that was set before it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
    name = f"[{host}]" if ":" in host else host
    on_listening(f"http://{name}:{bound.getsockname()[1]}")
    with bound:
        server.run(sockets=[bound])


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket. uvicorn itself exits the process if a port is in use, and has no port 0.

    asyncio sets TCP_NODELAY only on sockets whose protocol is named; without it, answers on a connection that
    is kept wait 40 ms for the client's acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UsageError(f"Port {port} of {host} is in use. Choose another with --port.") from None
        raise UsageError(f"Cannot listen on {host}, port {port}: {error}.") from None
    return bound
