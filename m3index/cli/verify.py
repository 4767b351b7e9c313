"""m3index verify: compares the index with the corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.ingest import Paths
from m3index.cli.options import CorpusOutput
from m3index.cli.service import check_input, opened
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.index.options import VerifyOptions
from m3index.progress import one_line
from m3index.store.options import Connection

if TYPE_CHECKING:
    from m3index.index.verify import Difference


@command(apps.app, "verify", panel=apps.EVERYDAY)
def verify(
    session: Session,
    paths: Paths,
    options: VerifyOptions,
    connection: Connection,
    model: Model,
    output: CorpusOutput,  # noqa: ARG001  (the session has it)
) -> None:
    """Compare the index with the corpus: rows, hashes, texts and newly encoded vectors (exit 15)."""

    check_input(paths, options)

    def on_difference(difference: Difference) -> None:
        session.reporter.result(difference.to_json())
        if not session.as_json:
            typer.echo(one_line(str(difference)))

    with opened(session, connection, model) as index, session.stop.listening(session.reporter):
        outcome = index.verify(
            paths, options, on_difference=on_difference, reporter=session.reporter, stop=session.stop
        )
    session.outcome(outcome)
