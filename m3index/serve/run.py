"""Runs an application until it is told to stop; what is under way is finished first."""

from __future__ import annotations

import errno
import signal
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from m3index.api import Index
from m3index.errors import M3IndexError, UsageError
from m3index.serve.app import create_app
from m3index.serve.guard import Access
from m3index.serve.metrics import Metrics
from m3index.serve.warm import WarmIndex

GRACE = 20

OnListening = Callable[[str], None]
"""Told the URL once clients can connect."""


def serve(
    index: Index, access: Access, *, host: str, port: int, cross_encoder: str, on_listening: OnListening
) -> None:
    """Serves the index over HTTP until SIGINT or SIGTERM; then it is closed. port 0 takes a free one.

    Raises UsageError where the address cannot be had, and what the loading of the encoder raises.
    """
    metrics = Metrics()
    warm = WarmIndex(index, cross_encoder, metrics.batch.observe)

    def stop() -> None:
        server.should_exit = True

    server = make_server(create_app(warm, access, metrics, on_failure=stop))
    run_server(server, host, port, on_listening)
    if isinstance(warm.failure, M3IndexError):
        raise warm.failure
    if warm.failure is not None:
        raise M3IndexError(f"The encoder could not be loaded: {warm.failure}") from warm.failure


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
