"""m3index reindex: builds a new generation and moves the alias to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import CorpusOutput, MetricsFile
from m3index.cli.service import check_input, opened, quarantined
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.evaluate.options import GateOptions
from m3index.store.options import Connection


@command(apps.app, "reindex", panel=apps.EVERYDAY)
def reindex(
    session: Session,
    options: GateOptions,
    connection: Connection,
    model: Model,
    metrics: MetricsFile,  # noqa: ARG001  (the session has it, like the output)
    output: CorpusOutput,  # noqa: ARG001
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[SOURCE=]PATH",
            show_default=False,
            help="Corpus of each source; not needed if the vectors can be kept.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
) -> None:
    """Build a new generation with another model, other fields or settings, and let it serve."""
    corpora: dict[str, list[str]] = {}
    for path in paths:
        name, equals, rest = path.partition("=")
        is_path = not equals or "://" in name or Path(path).exists()
        source, location = (options.source, path) if is_path else (name, rest)
        corpora.setdefault(source, []).append(location)
    for locations in corpora.values():
        check_input(locations, options)
    with opened(session, connection, model) as index:
        gate = options.quality_gate
        if options.dry_run:
            session.outcome(index.plan_reindex(corpora, options))
            return
        with (
            session.stop.listening(session.reporter),
            quarantined(session, options, connection.uri, connection.collection, "reindex") as (
                options,
                reporter,
            ),
        ):
            summary = index.reindex(corpora, options, gate=gate, reporter=reporter, stop=session.stop)
    session.outcome(summary)
