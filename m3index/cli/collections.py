"""m3index collections list, drop and unlock."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from m3index.addresses import redacted
from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import Confirmation, DryRun, Output
from m3index.cli.service import opened
from m3index.cli.session import Session, confirm
from m3index.index.options import Waiting
from m3index.store.options import Address, Connection
from m3index.wording import many


@command(apps.collections, "list")
def list_collections(session: Session, address: Address, output: Output) -> None:  # noqa: ARG001
    """List the collections of the store, with their encoder, rows and generations."""
    from m3index.index.collections import listing
    from m3index.store.open import open_store

    with closing(open_store(address, create=False)) as store:
        collections = listing(store)
    for collection in collections:
        session.reporter.result(collection.to_json())
    session.summary |= {"collections": len(collections)}
    if session.as_json:
        return
    if not collections:
        session.reporter.note(f"There are no collections at {redacted(address.uri)}.")
        return
    from m3index.cli.show import rows

    rows(
        ("collection", "encoder", "sparse", "rows", "generations", "last success"),
        [
            (c.name, c.encoder, c.sparse, f"{c.rows:,}", f"{c.generations:,}", c.last_success or "-")
            for c in collections
        ],
        right=("rows", "generations"),
        whole=("sparse", "last success"),
    )


@command(apps.collections, "drop")
def drop(
    session: Session,
    collection: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the collection.", show_default=False),
    ],
    confirmation: Confirmation,
    waiting: Waiting,
    dry_run: DryRun,
    connection: Connection,
    output: Output,  # noqa: ARG001
) -> None:
    """Remove a collection with all its generations, after confirmation."""
    with opened(session, connection) as index:
        from m3index.index.collections import drop_collection

        generations = index.generations()
        total = sum(generation.rows for generation in generations)
        contents = f"{many(len(generations), 'generation')}, {many(total, 'row')}"
        session.summary |= {
            "collection": collection, "generations": len(generations), "rows": total,
            "dry_run": dry_run.dry_run,
        }  # fmt: skip
        if dry_run.dry_run:
            session.reporter.note(f"{collection}: would be removed, with {contents}.")
            return
        if not confirmation.yes:
            confirm(f"Remove the collection {collection!r}, with {contents}?")
        drop_collection(index.store, collection, waiting.lock_seconds)
    session.reporter.note(f"{collection}: removed, with {contents}.")


@command(apps.collections, "unlock")
def unlock(session: Session, dry_run: DryRun, connection: Connection, output: Output) -> None:  # noqa: ARG001
    """Free the lease of a run whose host has failed, before the lease expires."""
    with opened(session, connection) as index:
        index.current()  # raises for an unknown name
        holder = index.plan_unlock() if dry_run.dry_run else index.unlock()
    name, verb = connection.collection, "would be" if dry_run.dry_run else "is"
    session.reporter.note(f"The lease of {holder} {verb} freed." if holder else f"{name!r} is not locked.")
    session.summary |= {
        "collection": name, "freed": str(holder) if holder else None, "dry_run": dry_run.dry_run
    }  # fmt: skip
