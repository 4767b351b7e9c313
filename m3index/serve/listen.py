"""Runs an application until it is told to stop; what is under way is finished first."""

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
"""Told the URL once clients can connect."""


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Its log has errors only: a log of requests would hold what people look for."""
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
    """Until SIGINT or SIGTERM, which in the main thread both mean: finish, and return."""
    bound = _bind(host, port)
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal again when it is done, for the handler that was there before it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
    name = f"[{host}]" if ":" in host else host
    on_listening(f"http://{name}:{bound.getsockname()[1]}")
    with bound:
        server.run(sockets=[bound])


def _bind(host: str, port: int) -> socket.socket:
    """Bound here and not by uvicorn, which knows no port 0 and leaves the process where one is in use."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(1024)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UsageError(f"Port {port} of {host} is in use; choose another with --port.") from None
        raise UsageError(f"Cannot listen on {host}, port {port}: {error}.") from None
    return bound
