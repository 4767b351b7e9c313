"""Runs the HTTP server: an index, its application and a socket."""

from __future__ import annotations

from m3index.errors import M3IndexError
from m3index.serve.app import create_app
from m3index.serve.guard import Access
from m3index.serve.listen import OnListening, make_server, run_server
from m3index.serve.metrics import Metrics
from m3index.serve.options import Serving
from m3index.serve.served import ServedIndex
from m3index.service import IndexService


def serve(
    index: IndexService,
    access: Access,
    serving: Serving,
    timeout: float,
    *,
    on_listening: OnListening,
) -> None:
    """Serves the index, or the documents of one tenant, over HTTP until SIGINT or SIGTERM, then closes it.

    timeout: seconds in which a request is answered.
    Raises UsageError if it cannot listen, and the errors of loading the encoder.
    """
    metrics = Metrics()
    served = ServedIndex(index, serving.rerank or "", metrics.batch.observe, serving.tenant_name, timeout)

    def stop() -> None:
        server.should_exit = True

    server = make_server(create_app(served, access, metrics, on_failure=stop))
    run_server(server, serving.host, serving.port, on_listening)
    if isinstance(served.failure, M3IndexError):
        raise served.failure
    if served.failure is not None:
        raise M3IndexError(f"The encoder could not be loaded: {served.failure}") from served.failure
