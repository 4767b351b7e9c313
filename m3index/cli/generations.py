"""m3index generations list and rollback."""

from __future__ import annotations

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import DryRun, Output
from m3index.cli.service import opened
from m3index.cli.session import Session
from m3index.index.options import Waiting
from m3index.options import Group, Whole, group, option
from m3index.store.options import Connection
from m3index.wording import many


@group
class RollbackTarget(Group):
    """The generation that should serve."""

    panel = "Run"

    to: int | None = option(
        Whole(1), "Generation that should serve.", default=None, shown="the previous one", file=False
    )


@command(apps.generations, "list")
def list_generations(session: Session, connection: Connection, output: Output) -> None:  # noqa: ARG001
    """List the generations of a collection, with the one that serves."""
    with opened(session, connection) as index:
        generations = index.generations()
    for generation in generations:
        session.reporter.result(generation.to_json())
    if session.as_json:
        return
    from m3index.cli.show import rows

    rows(
        ("generation", "state", "encoder", "sparse", "rows", "created"),
        [
            (
                g.name,
                "serving" if g.current else g.state,
                g.encoder,
                g.sparse,
                f"{g.rows:,}",
                g.created or "-",
            )
            for g in generations
        ],
        right=("rows",),
        whole=("state", "sparse", "created"),
    )


@command(apps.generations, "rollback")
def rollback(
    session: Session,
    target: RollbackTarget,
    waiting: Waiting,
    dry_run: DryRun,
    connection: Connection,
    output: Output,  # noqa: ARG001
) -> None:
    """Return to an older generation."""
    with opened(session, connection) as index:
        if dry_run.dry_run:
            generation, verb = index.plan_rollback(target.to), "would be"
        else:
            generation, verb = index.rollback(target.to, wait=waiting.lock_seconds), "is now"
    name = connection.collection
    session.reporter.note(f"{name!r} {verb} generation {generation.number} ({many(generation.rows, 'row')}).")
    session.summary |= {
        "collection": name, "generation": generation.number, "dry_run": dry_run.dry_run
    }  # fmt: skip
