"""m3index serve: the warm index over HTTP, and a page for people."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from m3index.cli import options
from m3index.cli.extras import need
from m3index.cli.session import session
from m3index.types import DEFAULT_COLLECTION

PORT = 8080

Host = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_SERVE_HOST", metavar="HOST", rich_help_panel="Server",
        help="Where to listen. Beyond this machine a token is needed: M3INDEX_SERVE_TOKEN, else one is made.",
    ),
]  # fmt: skip
Port = Annotated[
    int,
    typer.Option(
        envvar="M3INDEX_SERVE_PORT", metavar="PORT", rich_help_panel="Server", min=0, max=65535,
        help="0 takes a free one.",
    ),
]  # fmt: skip
ServeToken = Annotated[
    str,
    typer.Option(
        "--serve-token", envvar="M3INDEX_SERVE_TOKEN", metavar="TOKEN", rich_help_panel="Server",
        show_default="none on this machine", help="What clients must send. Better in the variable than here.",
    ),
]  # fmt: skip
Tenant = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--tenant", envvar="M3INDEX_TENANT", metavar="VALUE", rich_help_panel="Server",
        show_default="all", help="Only this tenant's documents, for every client and whatever it asks.",
    ),
]  # fmt: skip
Rerank = Annotated[
    str,
    typer.Option(
        "--rerank", envvar="M3INDEX_SERVE_RERANK", metavar="MODEL", rich_help_panel="Server",
        show_default="none", help="A cross-encoder that clients may rerank with, loaded at the start.",
    ),
]  # fmt: skip


def serve(
    host: Host = "127.0.0.1",
    port: Port = PORT,
    serve_token: ServeToken = "",
    rerank: Rerank = "",
    tenant: Tenant = None,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    encoder: options.Encoder = "",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    dim: options.Dim = None,
    quiet: options.Quiet = False,
) -> None:
    """Keep a collection and its encoder warm: JSON over HTTP, a page for people, Prometheus metrics."""
    given = dict(locals())
    with session("serve", quiet=quiet) as run:
        need("fastapi", "uvicorn", "prometheus_client", extra="serve")
        from m3index.serve.guard import access
        from m3index.serve.run import serve as run_server

        allowed = access(host, serve_token or None)
        index = options.index_of(given)
        try:
            index.target()  # a collection that is not there is an error now, not at the first search
            if allowed.generated:
                typer.echo(f"token: {allowed.token}", err=True)

            def listening(url: str) -> None:
                run.reporter.note(f"{collection} at {url} (loading the encoder; stop with Ctrl-C)")

            run_server(
                index, allowed, host=host, port=port, cross_encoder=rerank, tenant=tenant,
                on_listening=listening,
            )  # fmt: skip
        finally:
            index.close()
