"""m3index verify: proves the index against the corpus."""

from __future__ import annotations

from typing import Annotated

import typer

from m3index.cli import options
from m3index.cli.ingest import settings
from m3index.cli.session import session
from m3index.types import DEFAULT_COLLECTION, DEFAULT_SOURCE


def verify(
    paths: options.Paths,
    subset: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_SUBSET",
            metavar="I/N",
            rich_help_panel="Corpus",
            help="Slice I of N of the documents, by their keys: N nights prove it all.",
        ),
    ] = "1/1",
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            metavar="",
            envvar="M3INDEX_REPAIR",
            rich_help_panel="Corpus",
            help="Mend exactly what differs.",
        ),
    ] = False,
    max_delete: options.MaxDelete = "",
    source: options.Source = DEFAULT_SOURCE,
    tenant: options.Tenant = None,
    input_format: options.InputFormat = "",
    id_field: options.IdField = "",
    text_field: options.TextField = "",
    title_field: options.TitleField = "",
    metadata_field: options.MetadataField = "",
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    retry_lock: options.RetryLock = "0s",
    encoder: options.Encoder = "",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    dim: options.Dim = None,
    batch_tokens: options.BatchTokens = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the index with the corpus: rows, hashes, texts, and vectors encoded anew (exit 15)."""
    given = dict(locals())
    with session("verify", as_json=as_json, quiet=quiet) as run, options.opened(run, given) as index:
        from m3index.corpus.mapping import FieldMapping
        from m3index.index.verify import Difference, parse_subset

        def found(difference: Difference) -> None:
            run.reporter.result(difference.to_json())
            if not as_json:
                typer.echo(str(difference))

        with run.stop.listening(run.reporter):
            outcome = index.verify(
                paths,
                settings(given),
                subset=parse_subset(subset),
                repair=repair,
                mapping=FieldMapping.named(
                    id=id_field or None,
                    text=text_field or None,
                    title=title_field or None,
                    metadata=metadata_field or None,
                ),
                input_format=input_format or None,
                found=found,
                reporter=run.reporter,
                stop=run.stop,
            )
        run.outcome(outcome)
