"""The connection to a store."""

from __future__ import annotations

import re

from m3index.addresses import ServerAddress, check_secrecy, redacted
from m3index.errors import UsageError
from m3index.options import FileName, Flag, Group, Number, Text, group, option, read_secret
from m3index.types import DEFAULT_COLLECTION

DEFAULT_URI = "m3index.db"

_SERVER = re.compile(r"(https?|tcp)://|unix:", re.IGNORECASE)
_WITHOUT_SCHEME = re.compile(
    r"(.*@)?(?P<server>([\w-]+(\.[\w-]+)*|\[[0-9a-f:.]+\]):\d+)", re.IGNORECASE | re.DOTALL
)


def is_server(uri: str) -> bool:
    """Whether a URI is that of a server, not a path."""
    return _SERVER.match(uri) is not None


def check_uri(uri: str) -> None:
    """Raises UsageError for what can be neither a server nor a path."""
    if is_server(uri):
        if not uri.lower().startswith("unix:"):
            ServerAddress.parse(uri)
    elif "://" in uri and not uri.startswith("file://"):
        raise UsageError(
            f"{redacted(uri)!r} is not an address of Milvus: use a path ending in .db, or http://HOST:PORT."
        )
    elif match := _WITHOUT_SCHEME.fullmatch(uri):
        server = match["server"]
        raise UsageError(f"{server!r} has no scheme. For a server, write 'http://{server}'.")


class StoreUri(FileName):
    """A path or the URI of a server."""

    def check(self, value: object) -> str:
        uri = super().check(value)
        check_uri(uri)
        return uri


@group
class Transport(Group):
    """How tokens may travel."""

    panel = "Store"

    insecure: bool = option(
        Flag(),
        "Send tokens over unencrypted HTTP to other machines too, where others on the way can read them.",
        default=False,
        variable=True,
    )


@group
class Address(Transport):
    """A store."""

    panel = "Store"

    uri: str = option(
        StoreUri("URI", "a path such as m3index.db or the URI of a server"),
        "Path of a local Milvus Lite database, or URI of a Milvus server.",
        default=DEFAULT_URI,
        variable=True,
    )
    token: str | None = option(
        Text("TOKEN"),
        "Credentials for the server, USER:PASSWORD or an API key.",
        default=None,
        shown="none",
        flag=False,
        variable=True,
        file=False,
        secret=True,
    )
    token_file: str | None = option(
        FileName(),
        "File with the credentials for the server, USER:PASSWORD or an API key, instead of M3INDEX_TOKEN.",
        default=None,
        shown="none",
        variable=True,
    )
    db: str | None = option(
        Text("NAME"),
        "Name of the database on the server.",
        default=None,
        shown="the server's default",
        variable=True,
    )
    timeout: float = option(
        Number(0.1, metavar="SECONDS"),
        "Maximum time to retry while the store does not respond, in seconds.",
        default=60.0,
        variable=True,
        harmless=True,
    )

    def check(self) -> None:
        if is_server(self.uri):
            has_token = read_secret(self.token, self.token_file, "M3INDEX_TOKEN", "--token-file") is not None
            check_secrecy(self.uri, has_token=has_token, insecure=self.insecure)
        super().check()

    @property
    def credentials(self) -> str | None:
        """The token, from `token` or its file. Raises UsageError if the file cannot be read."""
        return read_secret(self.token, self.token_file, "M3INDEX_TOKEN", "--token-file")


@group
class Connection(Address):
    """A store and the name of a collection in it."""

    panel = "Store"

    collection: str = option(
        Text("NAME"),
        "Name of the collection, which is an alias for one of its generations.",
        default=DEFAULT_COLLECTION,
        flags=("--collection", "-c"),
        variable=True,
        kw_only=False,
    )
