"""The options of servers and their clients."""

from __future__ import annotations

from m3index.addresses import check_server
from m3index.index.options import TenantLimit
from m3index.options import Flag, Group, Text, Whole, group, option

PORT, MCP_PORT = 8080, 8081


class ServerUrl(Text):
    """The URL of a server of m3index."""

    takes = "a URL such as http://127.0.0.1:8080"

    def check(self, value: object) -> str:
        url = super().check(value)
        if not url.lower().startswith(("http://", "https://")):
            raise ValueError
        check_server(url)
        return url


@group
class ServeToken(Group):
    """The token that clients send and a server expects."""

    panel = "Server"

    serve_token: str | None = option(
        Text("TOKEN"),
        "Token that clients must send; prefer the environment variable.",
        default=None,
        shown="none on the local machine",
        variable=True,
        file=False,
        secret=True,
    )


@group
class RemoteServer(ServeToken):
    """A server to query instead of a store."""

    panel = "Server"

    server: str | None = option(
        ServerUrl("URL"),
        "URL of a running m3index serve to query, which has the model loaded.",
        default=None,
        shown="none",
        variable=True,
    )


@group
class Listening(TenantLimit, ServeToken):
    """The address of a server and the tenant it serves."""

    panel = "Server"

    host: str = option(
        Text("HOST"),
        "Host name or address to listen on; beyond the local machine a token is required, and generated if "
        "missing.",
        default="127.0.0.1",
    )
    port: int = option(Whole(0, 65535), "Port to listen on; 0 chooses a free port.", default=PORT)


@group
class Serving(Listening):
    """An HTTP server."""

    panel = "Server"

    rerank: str | None = option(
        Text("MODEL"),
        "Cross-encoder for reranking, loaded at startup.",
        default=None,
        shown="none",
    )


@group
class McpServing(Listening):
    """An MCP server."""

    panel = "Server"

    port: int = option(Whole(0, 65535), "Port to listen on; 0 chooses a free port.", default=MCP_PORT)
    http: bool = option(
        Flag(), "Serve streamable HTTP at /mcp instead of standard input and output.", default=False
    )
