"""m3index doctor: checks the installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import Output
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.errors import Exit
from m3index.options import changed
from m3index.store.options import Connection

if TYPE_CHECKING:
    from m3index.doctor import Finding

TIMEOUT = 10.0


@command(apps.app, "doctor", panel=apps.OPERATIONS)
def doctor(session: Session, connection: Connection, model: Model, output: Output) -> None:  # noqa: ARG001
    """Check software, device, store, collection and encoder, and suggest a remedy for each problem."""
    from m3index.doctor import examine
    from m3index.service import IndexService

    if "timeout" not in session.explicit:
        connection = changed(connection, {"timeout": TIMEOUT})
    problems = 0
    for finding in examine(lambda: IndexService.open(connection, model, create=False)):
        session.reporter.result(finding.to_json())
        if finding.level == "problem":
            problems += 1
            session.exit = session.exit or Exit(finding.exit)
        if not session.as_json:
            _show(finding)
    session.summary |= {"problems": problems}


def _show(finding: Finding) -> None:
    from rich.table import Table
    from rich.text import Text

    from m3index.cli.show import block

    style = {"ok": "green", "note": "yellow", "problem": "red"}[finding.level]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8)
    grid.add_column(width=10)
    grid.add_column(overflow="fold")
    grid.add_row(Text(finding.level, style=style), Text(finding.check, style="bold"), Text(finding.text))
    if finding.remedy:
        grid.add_row("", "", Text(finding.remedy, style="dim"))
    block(grid)
