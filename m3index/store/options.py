"""The connection to a store."""

from __future__ import annotations

from m3index.options import FileName, Group, Number, Text, group, option
from m3index.types import DEFAULT_COLLECTION

DEFAULT_URI = "m3index.db"


@group
class Address(Group):
    """A store."""

    panel = "Store"

    uri: str = option(
        FileName("URI", "a path such as m3index.db or the URI of a server"),
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
