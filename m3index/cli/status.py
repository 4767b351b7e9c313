"""m3index status: describes a collection."""

from __future__ import annotations

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import Output
from m3index.cli.service import opened, serving
from m3index.cli.session import Session
from m3index.serve.options import RemoteServer
from m3index.store.options import Connection


@command(apps.app, "status", panel=apps.EVERYDAY)
def status(
    session: Session,
    remote: RemoteServer,
    connection: Connection,
    output: Output,  # noqa: ARG001  (the session has it)
) -> None:
    """Show rows, encoder, sparse kind, schema version and last change of a collection. For monitoring."""
    if remote.server is not None:
        record = serving(session, remote, connection).status().to_json()
    else:
        with opened(session, connection, brief=True) as index:
            record = index.status().to_json()
    if session.as_json:
        session.reporter.result(record)
        return
    from m3index.cli.show import pairs

    pairs([(name.replace("_", " "), _value(value)) for name, value in record.items() if name != "type"])


def _value(value: object) -> str:
    """A value as text. The only float is the rate."""
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
