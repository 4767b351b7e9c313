"""The connection to a store."""

from __future__ import annotations

import re

from m3index.addresses import check_server, redacted
from m3index.errors import UsageError
from m3index.options import FileName, Group, Number, Text, group, option
from m3index.types import DEFAULT_COLLECTION

DEFAULT_URI = "m3index.db"

_SERVER = re.compile(r"(https?|tcp)://|unix:", re.IGNORECASE)
_WITHOUT_SCHEME = re.compile(r"([\w-]+(\.[\w-]+)*|\[[0-9a-f:.]+\]):\d+", re.IGNORECASE)


def is_server(uri: str) -> bool:
    """Whether a URI is that of a server, not a path."""
    return _SERVER.match(uri) is not None


def check_uri(uri: str) -> None:
    """Raises UsageError for what can be neither a server nor a path."""
    if is_server(uri):
        if not uri.lower().startswith("unix:"):
            check_server(uri)
    elif "://" in uri and not uri.startswith("file://"):
        raise UsageError(
            f"{redacted(uri)!r} is not an address of Milvus: use a path ending in .db, or http://HOST:PORT."
        )
    elif _WITHOUT_SCHEME.fullmatch(uri):
        raise UsageError(f"{uri!r} has no scheme. For a server, write 'http://{uri}'.")


class StoreUri(FileName):
    """A path or the URI of a server."""

    def check(self, value: object) -> str:
        uri = super().check(value)
        check_uri(uri)
        return uri


@group
class Address(Group):
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
        "Credentials for the server, USER:PASSWORD or an API key; prefer the environment variable.",
        default=None,
        shown="none",
        variable=True,
        file=False,
        secret=True,
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
    )


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
