"""The HTTP server, whole: an index, its application, a socket."""

from __future__ import annotations

from m3index.api import Index
from m3index.errors import M3IndexError
from m3index.serve.app import create_app
from m3index.serve.guard import Access
from m3index.serve.listen import OnListening, make_server, run_server
from m3index.serve.metrics import Metrics
from m3index.serve.warm import WarmIndex


def serve(
    index: Index,
    access: Access,
    *,
    host: str,
    port: int,
    cross_encoder: str,
    tenant: str | None,
    on_listening: OnListening,
) -> None:
    """Serves the index, or one tenant's part of it, over HTTP until SIGINT or SIGTERM; then it is closed.
    port 0 takes a free one.

    Raises UsageError where the address cannot be had, and what the loading of the encoder raises.
    """
    metrics = Metrics()
    warm = WarmIndex(index, cross_encoder, metrics.batch.observe, tenant)

    def stop() -> None:
        server.should_exit = True

    server = make_server(create_app(warm, access, metrics, on_failure=stop))
    run_server(server, host, port, on_listening)
    if isinstance(warm.failure, M3IndexError):
        raise warm.failure
    if warm.failure is not None:
        raise M3IndexError(f"The encoder could not be loaded: {warm.failure}") from warm.failure
