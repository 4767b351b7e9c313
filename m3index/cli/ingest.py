"""m3index ingest and m3index sync: a corpus into its collection, only what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m3index.cli import options, parse
from m3index.cli.session import Session, session
from m3index.errors import UsageError
from m3index.types import DEFAULT_COLLECTION, DEFAULT_SOURCE

if TYPE_CHECKING:
    from m3index.index.settings import Mode, SyncSettings


def ingest(
    paths: options.Paths,
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
    quarantine: options.QuarantinePath = None,
    max_errors: options.MaxErrors = None,
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
    """Encode the documents that are new or changed and write them. Removes nothing."""
    given = dict(locals())
    with session("ingest", as_json=as_json, quiet=quiet) as run:
        update(run, "ingest", given)


def sync(
    paths: options.SomePaths = [],  # noqa: B006  (typer copies it)
    changes: options.Changes = "",
    max_delete: options.MaxDelete = "",
    source: options.Source = DEFAULT_SOURCE,
    tenant: options.Tenant = None,
    field: options.Field = [],  # noqa: B006
    passage_tokens: options.PassageTokens = "",
    overlap: options.Overlap = None,
    input_format: options.InputFormat = "",
    id_field: options.IdField = "",
    text_field: options.TextField = "",
    title_field: options.TitleField = "",
    metadata_field: options.MetadataField = "",
    quarantine: options.QuarantinePath = None,
    max_errors: options.MaxErrors = None,
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
    """The cron job: ingest, and remove what has left the corpus, within a guard."""
    given = dict(locals())
    with session("sync", as_json=as_json, quiet=quiet) as run:
        update(run, "sync", given)


def prune(
    paths: options.Paths,
    max_delete: options.MaxDelete = "",
    source: options.Source = DEFAULT_SOURCE,
    tenant: options.Tenant = None,
    input_format: options.InputFormat = "",
    id_field: options.IdField = "",
    text_field: options.TextField = "",
    title_field: options.TitleField = "",
    metadata_field: options.MetadataField = "",
    quarantine: options.QuarantinePath = None,
    max_errors: options.MaxErrors = None,
    dry_run: options.DryRun = False,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    retry_lock: options.RetryLock = "0s",
    encoder: options.Encoder = "",
    metrics_file: options.MetricsFile = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove what has left the corpus, within a guard; encode and write nothing."""
    given = dict(locals())
    with session("prune", as_json=as_json, quiet=quiet) as run:
        update(run, "prune", given)


def update(run: Session, mode: Mode, given: dict[str, Any]) -> None:
    """The body that these commands share. `given`: their options by parameter name."""
    from m3index.corpus.mapping import FieldMapping

    quarantine = given["quarantine"] or options.DEFAULT_QUARANTINE
    run.metrics_file = given.get("metrics_file")
    corpus: dict[str, Any] = {
        "mapping": FieldMapping.named(
            id=given["id_field"] or None,
            text=given["text_field"] or None,
            title=given["title_field"] or None,
            metadata=given["metadata_field"] or None,
        ),
        "input_format": given["input_format"] or None,
        "reporter": run.reporter,
    }
    chosen = settings(given)
    with options.opened(run, given, create=True) as index:
        if bool(given["paths"]) == bool(given.get("changes")):
            raise UsageError("Name the corpus, or a feed with --changes; one of the two.")
        if given["dry_run"] and not given["paths"]:
            del corpus["input_format"]
            run.outcome(index.plan_changes(given["changes"], chosen, **corpus))
            return
        if given["dry_run"]:
            run.outcome(index.plan(given["paths"], chosen, mode=mode, **corpus))
            return
        with run.stop.listening(run.reporter):
            told = corpus | {"quarantine": quarantine, "stop": run.stop}
            if given["paths"]:
                summary = index.update(mode, given["paths"], chosen, **told)
            else:
                del told["input_format"]
                summary = index.apply(given["changes"], chosen, **told)
    run.outcome(summary)
    if summary.quarantined and not run.as_json:
        one = summary.quarantined == 1
        found = "1 bad row is" if one else f"{summary.quarantined:,} bad rows are"
        run.reporter.note(
            f"{found} in {quarantine}: mend {'it' if one else 'them'} there and ingest the file."
        )


_DEFAULTS: dict[str, Any] = {
    "passage_tokens": "",
    "overlap": None,
    "field": [],
    "sparse": "",
    "analyzer": "",
    "tenant_field": "",
    "tenant": None,
    "storage": "",
    "index_class": "",
    "index": [],
    "max_errors": None,
    "force": False,
    "retry_lock": "0",
}
"""Of the commands that lack some of these options."""


def settings(given: dict[str, Any]) -> SyncSettings:
    """The options of a run over a corpus."""
    from m3index.index.prune import MaxDelete
    from m3index.index.settings import SyncSettings
    from m3index.schema import parse_field

    given = _DEFAULTS | given
    return SyncSettings(
        source=given["source"],
        passages=parse.passages(given["passage_tokens"], given["overlap"]),
        fields=dict(map(parse_field, given["field"])) or None,
        sparse=parse.sparse(given["sparse"]),
        analyzer=given["analyzer"] or None,
        tenant_field=given["tenant_field"] or None,
        storage=parse.storage(given["storage"]),
        index=parse.index(given["index_class"], given["index"]),
        tenant=given["tenant"],
        max_delete=MaxDelete.parse(given["max_delete"]) if given.get("max_delete") else None,
        max_errors=given["max_errors"],
        force=given["force"],
        retry_lock=parse.seconds(given["retry_lock"]),
    )
