"""m3index doctor: what is wrong with this set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3index.cli import options
from m3index.cli.session import session
from m3index.errors import Exit
from m3index.types import DEFAULT_COLLECTION

if TYPE_CHECKING:
    from m3index.doctor import Finding


def doctor(
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 10.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    encoder: options.Encoder = "",
    as_json: options.Json = False,
) -> None:
    """Look at software, device, store, collection and encoder; name a remedy for each finding."""
    given = dict(locals())
    with session("doctor", as_json=as_json) as run:
        from m3index.doctor import examine

        problems = 0
        for finding in examine(lambda: options.index_of(given)):
            run.reporter.result(finding.to_json())
            if finding.level == "problem":
                problems += 1
                run.exit = run.exit or Exit(finding.exit)
            if not as_json:
                _show(finding)
        run.summary |= {"problems": problems}


def _show(finding: Finding) -> None:
    from rich.table import Table
    from rich.text import Text

    from m3index.cli.show import console

    style = {"ok": "green", "note": "yellow", "problem": "red"}[finding.level]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8)
    grid.add_column(width=10)
    grid.add_column(overflow="fold")
    grid.add_row(Text(finding.level, style=style), Text(finding.check, style="bold"), Text(finding.text))
    if finding.remedy:
        grid.add_row("", "", Text(finding.remedy, style="dim"))
    console().print(grid)
