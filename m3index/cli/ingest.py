"""m3index ingest and m3index sync: write the changes of a corpus to its collection."""

from __future__ import annotations

from typing import Annotated

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import MetricsFile, Output
from m3index.cli.service import DEFAULT_QUARANTINE, opened
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.errors import UsageError
from m3index.index.options import IngestOptions, SyncOptions
from m3index.options import FileName, changed, group, option
from m3index.store.options import Connection

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        show_default=False,
        help="JSONL (also .gz, .zst), Parquet, CSV or text: files, globs, directories, or - for stdin.",
    ),
]


@group
class SyncCommand(SyncOptions):
    """The synchronisation with a corpus, or with a feed of its changes."""

    panel = "Input"

    changes: str | None = option(
        FileName(),
        'Feed of changes, instead of a corpus: documents, and {"op": "delete", "id": ...}.',
        default=None,
        shown="none",
        file=False,
    )


@command(apps.app, "ingest", panel=apps.EVERYDAY)
def ingest(
    session: Session,
    paths: Paths,
    options: IngestOptions,
    connection: Connection,
    model: Model,
    metrics: MetricsFile,
    output: Output,  # noqa: ARG001  (the session has it)
) -> None:
    """Encode and write new and changed documents. Removes nothing."""
    update(session, paths, None, options, connection, model, metrics)


@command(apps.app, "sync", panel=apps.EVERYDAY)
def sync(
    session: Session,
    options: SyncCommand,
    connection: Connection,
    model: Model,
    metrics: MetricsFile,
    output: Output,  # noqa: ARG001
    paths: Paths = [],  # noqa: B006  (typer copies it)
) -> None:
    """Ingest, and remove documents that are no longer in the corpus, up to a limit. For cron jobs."""
    update(session, paths, options.changes, options, connection, model, metrics)


def update(
    session: Session,
    paths: list[str],
    changes: str | None,
    options: IngestOptions,
    connection: Connection,
    model: Model,
    metrics: MetricsFile,
) -> None:
    """The common part of both commands."""
    session.metrics_file = metrics.metrics_file
    if bool(paths) == (changes is not None):
        raise UsageError("Give either a corpus or a feed with --changes.")
    quarantine = options.quarantine or DEFAULT_QUARANTINE
    options = changed(options, {"quarantine": quarantine})
    with opened(session, connection, model, create=True) as index, session.stop.listening(session.reporter):
        if changes is not None:
            summary = index.apply(changes, options, reporter=session.reporter, stop=session.stop)
        else:
            summary = index.update(paths, options, reporter=session.reporter, stop=session.stop)
    session.outcome(summary)
    if summary.quarantined and not summary.dry_run and not session.as_json:
        is_one = summary.quarantined == 1
        rows = "1 bad row is" if is_one else f"{summary.quarantined:,} bad rows are"
        session.reporter.note(
            f"{rows} in {quarantine}. Correct {'it' if is_one else 'them'} there and ingest the file."
        )
