"""m3index delete: documents, by id or by filter."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from m3index.cli import options, parse
from m3index.cli.session import session
from m3index.errors import UsageError
from m3index.types import DEFAULT_COLLECTION, DEFAULT_SOURCE


def delete(
    ids: Annotated[
        list[str], typer.Argument(metavar="DOC_ID", help="Documents to remove.", show_default=False)
    ] = [],  # noqa: B006  (typer copies it)
    file: Annotated[
        Optional[Path],  # noqa: UP045  (typer evaluates it)
        typer.Option(
            envvar="M3INDEX_DELETE_FILE",
            metavar="FILE",
            show_default="none",
            help="More ids: one a line, or JSON lines with an id; - for stdin.",
        ),
    ] = None,
    filter_: options.FilterText = "",
    where: options.Where = [],  # noqa: B006
    source: options.Source = DEFAULT_SOURCE,
    tenant: options.Tenant = None,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    retry_lock: options.RetryLock = "0s",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove documents by id, from a file of ids, or by filter. Asks first."""
    given = dict(locals())
    with session("delete", as_json=as_json, quiet=quiet) as run, options.opened(run, given) as index:
        named = [*ids, *(_ids(file) if file is not None else [])]
        filtered = index.where(where, filter_ or None)
        if bool(named) == (filtered is not None):
            raise UsageError("Name documents by id or --file, or say which by --where or --filter.")
        which: dict[str, Any] = {"ids": named} if named else {"where": filtered}
        found = index.delete(**which, source=source, tenant=tenant, dry_run=True)
        run.summary["dry_run"] = dry_run
        if dry_run or not found.deleted:
            run.outcome(found, planned=dry_run)
            return
        if not yes:
            count = f"{found.deleted:,} document" + ("s" if found.deleted != 1 else "")
            whose = f"source {source!r}" + (f" and tenant {tenant!r}" if tenant else "")
            question = f"Remove {count} of {whose} from {collection!r}?"
            if not sys.stdin.isatty():
                raise UsageError(f"{question} Say so with --yes.")
            typer.confirm(question, abort=True, err=True)
        with run.stop.listening(run.reporter):
            retry = parse.seconds(retry_lock)
            summary = index.delete(
                **which,
                source=source,
                tenant=tenant,
                retry_lock=retry,
                reporter=run.reporter,
                stop=run.stop,
            )
        run.outcome(summary)


def _ids(path: Path) -> Iterable[str]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The ids in {path} cannot be read: {error}.") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        yield _json_id(path, number, line) if line.lstrip().startswith("{") else line


def _json_id(path: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
        return str(next(row[name] for name in ("id", "_id", "docid", "doc_id") if name in row))
    except (ValueError, StopIteration):
        raise UsageError(f"{path}:{number} has no id.") from None
