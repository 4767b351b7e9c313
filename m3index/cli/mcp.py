"""m3index mcp: the index as tools for assistants, by the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from m3index.cli import options
from m3index.cli.extras import need
from m3index.cli.serve import Host, Port, ServeToken, Tenant
from m3index.cli.session import session
from m3index.types import DEFAULT_COLLECTION

PORT = 8081


def mcp(
    http: Annotated[
        bool,
        typer.Option(
            "--http", metavar="", envvar="M3INDEX_MCP_HTTP", rich_help_panel="Server",
            help="Streamable HTTP at /mcp, instead of standard input and output.",
        ),
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    serve_token: ServeToken = "",
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
) -> None:  # fmt: skip
    """Offer search, get_document and status as tools to an assistant (Model Context Protocol)."""
    given = dict(locals())
    with session("mcp", quiet=quiet) as run:
        need("mcp", "uvicorn", extra="mcp")
        from m3index.serve.guard import access
        from m3index.serve.mcp import serve_http, tools
        from m3index.serve.warm import WarmIndex

        with options.index_of(given) as index:
            index.target()
            warm = WarmIndex(index, tenant=tenant)
            if not http:  # standard output is the protocol's: nothing else may be written there
                warm.load()
                tools(warm).run("stdio")
                return
            allowed = access(host, serve_token or None)
            if allowed.generated:
                typer.echo(f"token: {allowed.token}", err=True)
            warm.load()
            serve_http(warm, allowed, host, port, lambda url: run.reporter.note(f"{collection} at {url}/mcp"))
