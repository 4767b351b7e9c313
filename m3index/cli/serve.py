"""m3index serve and m3index mcp: the index over HTTP with a web page, and as tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from m3index.cli import apps
from m3index.cli.command import command, need
from m3index.cli.options import Quiet
from m3index.cli.service import opened
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.search.options import SynonymFile
from m3index.serve.options import Listening, McpServing, Serving
from m3index.store.options import Connection

if TYPE_CHECKING:
    from m3index.serve.guard import Access


@command(apps.app, "serve", panel=apps.OPERATIONS)
def serve(
    session: Session,
    serving: Serving,
    synonyms: SynonymFile,
    connection: Connection,
    model: Model,
    quiet: Quiet,  # noqa: ARG001  (the session has it)
) -> None:
    """Serve a collection over HTTP, with the model loaded: JSON, a web page and Prometheus metrics."""
    need("fastapi", "uvicorn", "prometheus_client", extra="serve")
    from m3index.serve.run import serve as run_server

    access = _access(serving)
    with opened(session, connection, model, synonyms=synonyms) as index:
        index.current()  # raises now for a missing collection, not at the first search
        _show_token(access)

        def on_listening(url: str) -> None:
            session.reporter.note(f"{connection.collection} at {url} (loading the encoder; stop with Ctrl-C)")

        run_server(index, access, serving, connection.timeout, on_listening=on_listening)


@command(apps.app, "mcp", panel=apps.OPERATIONS)
def mcp(
    session: Session,
    serving: McpServing,
    synonyms: SynonymFile,
    connection: Connection,
    model: Model,
    quiet: Quiet,  # noqa: ARG001
) -> None:
    """Offer search, get_document and status as tools for assistants (Model Context Protocol)."""
    need("mcp", "uvicorn", extra="mcp")
    from m3index.serve.mcp import serve_http, tools
    from m3index.serve.served import ServedIndex

    with opened(session, connection, model, synonyms=synonyms) as index:
        index.current()
        served = ServedIndex(index, tenant=serving.tenant_name, timeout=connection.timeout)
        if not serving.http:  # standard output is reserved for the protocol
            served.load()
            tools(served).run("stdio")
            return
        access = _access(serving)
        _show_token(access)
        served.load()

        def on_listening(url: str) -> None:
            session.reporter.note(f"{connection.collection} at {url}/mcp")

        serve_http(served, access, serving.host, serving.port, on_listening)


def _access(listening: Listening) -> Access:
    from m3index.serve.guard import access

    return access(listening.host, listening.shared_token)


def _show_token(access: Access) -> None:
    """Shows a generated token once, to the user who started the server."""
    if access.generated:
        typer.echo(f"token: {access.token}", err=True)
