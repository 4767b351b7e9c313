"""m3index status: what a collection holds."""

from __future__ import annotations

from m3index.cli import options
from m3index.cli.session import session
from m3index.types import DEFAULT_COLLECTION


def status(
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    as_json: options.Json = False,
) -> None:
    """Show a collection: rows, encoder, sparse kind, schema version, last change; fit for monitoring."""
    given = dict(locals())
    with session("status", as_json=as_json) as run:
        with options.opened(run, given) as index:
            found = index.status()
        if as_json:
            run.reporter.result(found.to_json())
            return
        from m3index.cli import show

        show.pairs(
            [
                (name.replace("_", " "), _value(value))
                for name, value in found.to_json().items()
                if name != "type"
            ]
        )


def _value(value: object) -> str:
    """A value for people. The one float is the rate."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.0f} tokens/s"
        case int():
            return f"{value:,}"
        case dict():
            return ", ".join(f"{name}:{kind}" for name, kind in value.items()) or "-"
        case list() | tuple():
            return ", ".join(map(str, value)) or "-"
    return str(value)
