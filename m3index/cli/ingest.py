"""m3index ingest and m3index sync: write the changes of a corpus to its collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import CorpusOutput, MetricsFile
from m3index.cli.service import check_input, opened, quarantined
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.errors import UsageError
from m3index.index.options import IngestOptions, Stop, SyncOptions
from m3index.options import FileName, group, option
from m3index.store.options import Connection

if TYPE_CHECKING:
    from m3index.index.summary import Summary
    from m3index.progress import Reporter
    from m3index.service import IndexService

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        show_default=False,
        help="JSONL, Parquet, CSV, Markdown, HTML, PDF and more: files, globs, directories, or - for stdin.",
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
    metrics: MetricsFile,  # noqa: ARG001  (the session has it, like the output)
    output: CorpusOutput,  # noqa: ARG001
) -> None:
    """Encode and write new and changed documents. Removes nothing."""
    update(session, paths, None, options, connection, model)


@command(apps.app, "sync", panel=apps.EVERYDAY)
def sync(
    session: Session,
    options: SyncCommand,
    connection: Connection,
    model: Model,
    metrics: MetricsFile,  # noqa: ARG001
    output: CorpusOutput,  # noqa: ARG001
    paths: Paths = [],  # noqa: B006  (typer copies it)
) -> None:
    """Ingest, and remove documents that are no longer in the corpus, up to a limit. For cron jobs."""
    update(session, paths, options.changes, options, connection, model)


def update(
    session: Session,
    paths: list[str],
    changes: str | None,
    options: IngestOptions,
    connection: Connection,
    model: Model,
) -> None:
    """The common part of both commands."""
    if bool(paths) == (changes is not None):
        raise UsageError("Give either a corpus or a feed with --changes.")
    check_input(paths, options, changes)
    with opened(session, connection, model, create=True) as index, session.stop.listening(session.reporter):
        if options.dry_run:
            summary = _run(index, paths, changes, options, session.reporter, session.stop)
        else:
            names = (connection.collection, options.source, options.tenant_name or "")
            with quarantined(session, options, connection.uri, *names) as (options, reporter):
                summary = _run(index, paths, changes, options, reporter, session.stop)
    session.outcome(summary)


def _run(
    index: IndexService,
    paths: list[str],
    changes: str | None,
    options: IngestOptions,
    reporter: Reporter,
    stop: Stop,
) -> Summary:
    if changes is not None:
        return index.apply(changes, options, reporter=reporter, stop=stop)
    return index.update(paths, options, reporter=reporter, stop=stop)
