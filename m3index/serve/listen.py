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

GRACE = 20

OnListening = Callable[[str], None]
"""Called with the URL once clients can connect."""


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server that logs only errors: a log of requests would reveal what users search for."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )


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
    """A listening socket. uvicorn itself exits the process if a port is in use, and has no port 0."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(1024)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UsageError(f"Port {port} of {host} is in use. Choose another with --port.") from None
        raise UsageError(f"Cannot listen on {host}, port {port}: {error}.") from None
    return bound
