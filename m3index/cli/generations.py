"""m3index generations, rollback, unlock: what stands behind a collection's name."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from m3index.cli import options, parse
from m3index.cli.session import session
from m3index.types import DEFAULT_COLLECTION


def generations(
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    as_json: options.Json = False,
) -> None:
    """List the generations of a collection and which one serves."""
    given = dict(locals())
    with session("generations", as_json=as_json) as run:
        with options.opened(run, given) as index:
            found = index.generations()
        for generation in found:
            run.reporter.result(generation.to_json())
        if as_json:
            return
        from rich.table import Table

        from m3index.cli.show import console

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("generation", "state", "encoder", "sparse", "rows", "created"):
            table.add_column(name, justify="right" if name == "rows" else "left")
        for g in found:
            state = "serving" if g.current else g.state
            table.add_row(g.name, state, g.encoder, g.sparse, f"{g.rows:,}", g.created or "-")
        console().print(table)


def rollback(
    to: Annotated[
        Optional[int],  # noqa: UP045  (typer evaluates it)
        typer.Option(
            envvar="M3INDEX_ROLLBACK_TO",
            metavar="N",
            show_default="the one before",
            help="Generation to serve.",
        ),
    ] = None,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    retry_lock: options.RetryLock = "0s",
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Let an older generation serve again."""
    given = dict(locals())
    with session("rollback", as_json=as_json) as run, options.opened(run, given) as index:
        if dry_run:
            chosen = index.plan_rollback(to)
            said = "would be"
        else:
            chosen = index.rollback(to, retry_lock=parse.seconds(retry_lock))
            said = "is now"
        run.reporter.note(f"{collection!r} {said} generation {chosen.number} ({chosen.rows:,} rows).")
        run.summary |= {"collection": collection, "generation": chosen.number, "dry_run": dry_run}


def unlock(
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Free the lease of a run whose host has died, before it expires by itself."""
    given = dict(locals())
    with session("unlock", as_json=as_json) as run, options.opened(run, given) as index:
        holder = index.plan_unlock() if dry_run else index.unlock()
        said = "would be" if dry_run else "is"
        run.reporter.note(
            f"The lease of {holder} {said} freed." if holder else f"{collection!r} is not locked."
        )
        freed = str(holder) if holder else None
        run.summary |= {"collection": collection, "freed": freed, "dry_run": dry_run}
