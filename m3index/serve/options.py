"""The options of servers and their clients."""

from __future__ import annotations

from m3index.addresses import ServerAddress, check_secrecy, redacted
from m3index.errors import UsageError
from m3index.index.options import TenantLimit
from m3index.options import FileName, Flag, Group, Text, Whole, group, option, read_secret
from m3index.store.options import Transport

PORT, MCP_PORT = 8080, 8081


class ServerUrl(Text):
    """The URL of a server of m3index."""

    takes = "a URL such as http://127.0.0.1:8080"

    def check(self, value: object) -> str:
        url = super().check(value)
        if not url.lower().startswith(("http://", "https://")):
            raise ValueError
        if ServerAddress.parse(url).has_credentials:
            raise UsageError(
                f"The address {redacted(url)!r} has a user name in it. The token of a server comes from "
                "M3INDEX_SERVE_TOKEN or --serve-token-file."
            )
        return url


@group
class ServeToken(Group):
    """The token that clients send and a server expects."""

    panel = "Server"

    serve_token: str | None = option(
        Text("TOKEN"),
        "Token that clients must send.",
        default=None,
        shown="none on the local machine",
        flag=False,
        variable=True,
        file=False,
        secret=True,
    )
    serve_token_file: str | None = option(
        FileName(),
        "File with the token that clients must send, instead of M3INDEX_SERVE_TOKEN.",
        default=None,
        shown="none",
        variable=True,
    )

    @property
    def shared_token(self) -> str | None:
        """The token, from `serve_token` or its file. Raises UsageError if the file cannot be read."""
        return read_secret(
            self.serve_token, self.serve_token_file, "M3INDEX_SERVE_TOKEN", "--serve-token-file"
        )


@group
class RemoteServer(Transport, ServeToken):
    """A server to query instead of a store."""

    panel = "Server"

    server: str | None = option(
        ServerUrl("URL"),
        "URL of a running m3index serve to query, which has the model loaded.",
        default=None,
        shown="none",
        variable=True,
    )

    def check(self) -> None:
        if self.server is not None:
            has_token = self.shared_token is not None
            check_secrecy(self.server, has_token=has_token, insecure=self.insecure)
        super().check()


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
