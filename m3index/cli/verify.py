"""m3index verify: compares the index with the corpus, or measures its recall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.ingest import Paths
from m3index.cli.options import CorpusOutput, MetricsFile
from m3index.cli.service import check_input, opened
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.errors import UsageError
from m3index.evaluate.options import RecallOptions
from m3index.index.options import VerifyOptions
from m3index.options import Text, Whole, group, option, options_of
from m3index.progress import one_line
from m3index.store.options import Connection

if TYPE_CHECKING:
    from m3index.evaluate.recall import RecallReport
    from m3index.index.verify import Difference


@group
class RecallCommand(RecallOptions):
    """A measurement of the recall, and the number of passages to measure with."""

    panel = "Recall"

    recall: int | None = option(
        Whole(1),
        "Instead of comparing a corpus, search with this number of stored passages in the index and by an "
        "exact scan, and compare.",
        default=None,
        shown="none",
        file=False,
    )
    source: str | None = option(Text("NAME"), "That of the corpus.", default=None, flag=False, file=False)


@command(apps.app, "verify", panel=apps.EVERYDAY)
def verify(
    session: Session,
    options: VerifyOptions,
    recall: RecallCommand,
    connection: Connection,
    model: Model,
    metrics: MetricsFile,  # noqa: ARG001  (the session has it)
    output: CorpusOutput,  # noqa: ARG001
    paths: Paths = [],  # noqa: B006  (typer copies it)
) -> None:
    """Compare the index with the corpus: rows, hashes, texts and newly encoded vectors (exit 15). With
    --recall, compare what it finds with an exact scan (exit 16)."""
    if bool(paths) == (recall.recall is not None):
        raise UsageError("Give either a corpus to compare the index with, or --recall N.")
    if recall.recall is not None:
        _measure(session, recall.recall, options, recall, connection, model)
        return
    of_both = ("source", "tenant")
    given = [o.flags[0] for o in options_of(RecallOptions) if o.name in session.explicit.difference(of_both)]
    if given:
        raise UsageError(f"{given[0]} is an option of --recall N. A corpus is compared without it.")
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


def _measure(
    session: Session,
    passages: int,
    verifying: VerifyOptions,
    options: RecallCommand,
    connection: Connection,
    model: Model,
) -> None:
    if verifying.repair:
        raise UsageError("--repair needs a corpus. Leave it out with --recall.")
    with opened(session, connection, model) as index:
        report = index.recall(passages, options, reporter=session.reporter)
    for note in report.notes:
        session.reporter.note(note)
    session.reporter.close()
    if not session.as_json:
        _table(report)
    session.outcome(report)


def _table(report: RecallReport) -> None:
    from m3index.cli.show import rows

    rows(
        ("leg", "index", "asked with", "filter", "recall", "95 % interval"),
        [
            (
                f"{row.leg} @{row.at}",
                report.indexes.get(row.leg, ""),
                f"{row.queries:,} {row.asked}",
                "yes" if row.filtered else "no",
                f"{row.mean:.4f}",
                f"[{row.low:.3f}, {row.high:.3f}]",
            )
            for row in report.rows
        ],
        right=("recall", "95 % interval"),
        whole=("leg",),
    )
