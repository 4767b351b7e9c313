"""m3index delete: removes documents by id or filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import Confirmation, Output
from m3index.cli.service import opened
from m3index.cli.session import Session, confirm
from m3index.corpus.lines import text_lines
from m3index.corpus.mapping import STANDARD, RowError
from m3index.errors import UsageError
from m3index.index.options import DeleteOptions
from m3index.options import FileName, changed, group, option
from m3index.store.options import Connection
from m3index.wording import many


@group
class DeleteCommand(DeleteOptions):
    """The documents to remove, with ids from a file."""

    panel = "Documents"

    file: str | None = option(
        FileName(),
        "File with more ids: one per line, or JSON Lines with an id; - for stdin.",
        default=None,
        shown="none",
        file=False,
    )

    def check(self) -> None:
        if self.file is None:
            super().check()


@command(apps.app, "delete", panel=apps.EVERYDAY)
def delete(
    session: Session,
    options: DeleteCommand,
    confirmation: Confirmation,
    connection: Connection,
    output: Output,  # noqa: ARG001  (the session has it)
    ids: Annotated[
        list[str], typer.Argument(metavar="DOC_ID", help="Documents to remove.", show_default=False)
    ] = [],  # noqa: B006  (typer copies it)
) -> None:
    """Remove documents by id, by a file of ids, or by filter, after confirmation."""
    if options.file is not None:
        options = changed(options, {"ids": [*ids, *_ids(options.file)], "file": None})
    with opened(session, connection) as index:
        planned = index.delete(changed(options, {"dry_run": True}))
        if options.dry_run or not planned.deleted:
            session.outcome(replace(planned, dry_run=options.dry_run))
            return
        if not confirmation.yes:
            documents = many(planned.deleted, "document")
            scope = f"source {options.source!r}" + (
                f" and tenant {options.tenant_name!r}" if options.tenant_name else ""
            )
            confirm(f"Remove {documents} of {scope} from {connection.collection!r}?")
        with session.stop.listening(session.reporter):
            summary = index.delete(options, reporter=session.reporter, stop=session.stop)
        session.outcome(summary)


def _ids(file: str) -> Iterator[str]:
    """The ids of a file: one on each line, or a row of JSON with one. Raises UsageError."""
    mapping = STANDARD
    for number, line in text_lines(file):
        if not line.lstrip().startswith("{"):
            yield line
            continue
        try:
            yield mapping.row_id(json.loads(line))
        except RowError as error:
            raise UsageError(f"{file}:{number}: {error.reason}.") from None
        except ValueError as error:
            raise UsageError(f"{file}:{number} is not JSON: {error}.") from None
