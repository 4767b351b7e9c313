"""m3index reindex: a new generation, and the alias moved to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from m3index.cli import options
from m3index.cli.eval import Queries
from m3index.cli.ingest import settings
from m3index.cli.session import session
from m3index.errors import UsageError
from m3index.types import DEFAULT_COLLECTION, DEFAULT_SOURCE


def reindex(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[SOURCE=]PATH",
            show_default=False,
            help="The corpus of each source; not needed where the vectors can be kept.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
    gate: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_GATE",
            metavar="CONDITION",
            show_default="none",
            help="Serve the new generation only if, e.g., nDCG@10>=old-0.005 (exit 16).",
        ),
    ] = "",
    queries: Queries = None,
    qrels: Annotated[
        Optional[Path],  # noqa: UP045  (typer evaluates it)
        typer.Option(
            envvar="M3INDEX_QRELS",
            metavar="FILE",
            rich_help_panel="Evaluation",
            show_default="none",
            help="Judgements for the gate: BEIR TSV or TREC qrels.",
        ),
    ] = None,
    keep: Annotated[
        int,
        typer.Option(
            envvar="M3INDEX_KEEP", metavar="N", min=0, help="Older generations to keep for rollback."
        ),
    ] = 1,
    max_delete: options.MaxDelete = "",
    source: options.Source = DEFAULT_SOURCE,
    field: options.Field = [],  # noqa: B006
    passage_tokens: options.PassageTokens = "",
    overlap: options.Overlap = None,
    input_format: options.InputFormat = "",
    id_field: options.IdField = "",
    text_field: options.TextField = "",
    title_field: options.TitleField = "",
    metadata_field: options.MetadataField = "",
    quarantine: options.QuarantinePath = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    retry_lock: options.RetryLock = "0s",
    encoder: options.Encoder = "",
    sparse: options.Sparse = "",
    analyzer: options.Analyzer = "",
    tenant_field: options.TenantField = "",
    storage: options.StorageOption = "",
    index_class: options.IndexClass = "",
    index: options.IndexChange = [],  # noqa: B006
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    dim: options.Dim = None,
    batch_tokens: options.BatchTokens = "auto",
    cache: options.Cache = "",
    metrics_file: options.MetricsFile = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build a new generation with another model, other fields or settings, and move the name to it."""
    given = dict(locals())
    with session("reindex", as_json=as_json, quiet=quiet) as run, options.opened(run, given) as opened:
        from m3index.api import QualityGate
        from m3index.corpus.mapping import FieldMapping
        from m3index.evaluate.formats import read_qrels, read_queries
        from m3index.evaluate.gate import Gate

        run.metrics_file = metrics_file
        checked = None
        if gate:
            if queries is None or qrels is None:
                raise UsageError("A --gate needs --queries and --qrels to judge by.")
            checked = QualityGate(Gate.parse(gate), read_queries(queries), read_qrels(qrels))
        corpora: dict[str, list[str]] = {}
        for path in paths:
            name, equals, rest = path.partition("=")
            plain = not equals or "://" in name or Path(path).exists()
            named, where = (source, path) if plain else (name, rest)
            corpora.setdefault(named, []).append(where)
        if dry_run:
            run.outcome(opened.plan_reindex(corpora, settings(given)))
            return
        with run.stop.listening(run.reporter):
            summary = opened.reindex(
                corpora,
                settings(given),
                gate=checked,
                keep=keep,
                mapping=FieldMapping.named(
                    id=id_field or None,
                    text=text_field or None,
                    title=title_field or None,
                    metadata=metadata_field or None,
                ),
                input_format=input_format or None,
                quarantine=quarantine or options.DEFAULT_QUARANTINE,
                reporter=run.reporter,
                stop=run.stop,
            )
        run.outcome(summary)
        if summary.quarantined and not as_json:
            rejected = quarantine or options.DEFAULT_QUARANTINE
            run.reporter.note(f"{summary.quarantined:,} rejected documents are named in {rejected}.")
