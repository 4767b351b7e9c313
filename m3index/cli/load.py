"""m3index load: shards into a collection; nothing is encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from m3index.cli import options, parse
from m3index.cli.extras import need
from m3index.cli.session import session
from m3index.errors import UsageError
from m3index.types import DEFAULT_COLLECTION

if TYPE_CHECKING:
    from m3index.store.bulk import Importer

_SHARDS = "Shards"


def load(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR",
            show_default=False,
            help="Folders that `m3index encode` or `export` filled. Of repeated ids the first counts.",
        ),
    ],
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            metavar="",
            envvar="M3INDEX_FRESH",
            rich_help_panel=_SHARDS,
            help="Into a new generation; the name moves to it once it is counted.",
        ),
    ] = False,
    keep: Annotated[
        int,
        typer.Option(
            envvar="M3INDEX_KEEP",
            metavar="N",
            min=0,
            rich_help_panel=_SHARDS,
            help="With --fresh: older generations to keep for rollback.",
        ),
    ] = 1,
    workers: Annotated[
        Optional[int],  # noqa: UP045  (typer evaluates it)
        typer.Option(
            envvar="M3INDEX_WORKERS",
            metavar="N",
            min=1,
            rich_help_panel=_SHARDS,
            show_default="4 into a server, 1 into a local file",
            help="Shards that are written at a time.",
        ),
    ] = None,
    bulk: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_BULK",
            metavar="S3_FOLDER",
            rich_help_panel=_SHARDS,
            show_default="none: by upsert",
            help="By the server's bulk import, with files put here: a folder in the server's own bucket.",
        ),
    ] = "",
    field: options.Field = [],  # noqa: B006  (typer copies it)
    sparse: options.Sparse = "",
    analyzer: options.Analyzer = "",
    tenant_field: options.TenantField = "",
    storage: options.StorageOption = "",
    index_class: options.IndexClass = "",
    index: options.IndexChange = [],  # noqa: B006
    quarantine: options.QuarantinePath = None,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    retry_lock: options.RetryLock = "0s",
    metrics_file: options.MetricsFile = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Load shards into a collection; a load that was interrupted is taken up by the next one."""
    given = dict(locals())
    with (
        session("load", as_json=as_json, quiet=quiet) as run,
        options.opened(run, given, create=True) as target,
    ):
        from m3index.api import quarantining
        from m3index.files import Folder
        from m3index.scale.bulk import bulk_load
        from m3index.scale.load import LoadSettings
        from m3index.scale.load import load as load_shards
        from m3index.schema import parse_field

        run.metrics_file = metrics_file
        settings = LoadSettings(
            fields=dict(map(parse_field, field)) or None,
            sparse=parse.sparse(sparse),
            analyzer=analyzer or None,
            tenant_field=tenant_field or None,
            storage=parse.storage(storage),
            index=parse.index(index_class, index),
            fresh=fresh,
            keep=keep,
            workers=workers,
            retry_lock=parse.seconds(retry_lock),
        )
        shards = [Folder(folder) for folder in folders]
        with (
            run.stop.listening(run.reporter),
            quarantining(run.reporter, quarantine or options.DEFAULT_QUARANTINE) as told,
        ):
            if bulk:
                need("minio", "azure.storage.blob", "ml_dtypes", extra="bulk")
                importer = _importer(uri, token, db)
                summary = bulk_load(
                    target.store, importer, collection, shards, Folder(bulk), settings,
                    reporter=told, stop=run.stop,
                )  # fmt: skip
            else:
                summary = load_shards(
                    target.store, collection, shards, settings, reporter=told, stop=run.stop
                )
        run.outcome(summary)


def _importer(uri: str, token: str, db: str) -> Importer:
    from m3index.store.bulk import ServerImporter

    if not uri.startswith(("http://", "https://")):
        raise UsageError(f"Bulk import is a service of Milvus servers (http://host:19530); {uri} is none.")
    return ServerImporter(uri, token, db)
