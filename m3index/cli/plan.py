"""m3index plan: what a sync would do."""

from __future__ import annotations

from typing import Annotated

import typer

from m3index.cli import options
from m3index.cli.ingest import update
from m3index.cli.session import session
from m3index.errors import UsageError
from m3index.types import DEFAULT_COLLECTION, DEFAULT_SOURCE


def plan(
    paths: options.Paths,
    mode: Annotated[
        str,
        typer.Option(
            "--for",
            envvar="M3INDEX_PLAN_FOR",
            metavar="COMMAND",
            help="sync, ingest or prune.",
            rich_help_panel="Corpus",
        ),
    ] = "sync",
    max_delete: options.MaxDelete = "",
    source: options.Source = DEFAULT_SOURCE,
    tenant: options.Tenant = None,
    field: options.Field = [],  # noqa: B006  (typer copies it)
    passage_tokens: options.PassageTokens = "",
    overlap: options.Overlap = None,
    input_format: options.InputFormat = "",
    id_field: options.IdField = "",
    text_field: options.TextField = "",
    title_field: options.TitleField = "",
    metadata_field: options.MetadataField = "",
    force: options.Force = False,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    encoder: options.Encoder = "",
    sparse: options.Sparse = "",
    analyzer: options.Analyzer = "",
    tenant_field: options.TenantField = "",
    dim: options.Dim = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what a sync would add, update, remove and encode; write nothing."""
    given = dict(locals()) | {"dry_run": True, "quarantine": None}
    with session("plan", as_json=as_json, quiet=quiet) as run:
        match mode:
            case "sync" | "ingest" | "prune":
                update(run, mode, given)
            case _:
                raise UsageError(f"--for is sync, ingest or prune, not {mode!r}.")
