"""m3index export: a collection into shards, for a rebuild or a move that costs no encoding."""

from __future__ import annotations

from m3index.cli import options
from m3index.cli.encode import DenseAs, Out, ShardDocuments
from m3index.cli.session import session
from m3index.errors import Exit
from m3index.types import DEFAULT_COLLECTION


def export(
    out: Out,
    shard_documents: ShardDocuments = 4096,
    dense_as: DenseAs = "float32",
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a collection's rows and vectors as shards, for `m3index load` elsewhere."""
    given = dict(locals())
    with session("export", as_json=as_json, quiet=quiet) as run, options.opened(run, given) as index:
        from m3index.files import Folder
        from m3index.scale.export import export as export_shards
        from m3index.scale.shards import dense_type

        with run.stop.listening(run.reporter):
            summary = export_shards(
                index.store,
                collection,
                Folder(out),
                dense=dense_type(dense_as),
                block=shard_documents,
                reporter=run.reporter,
                stop=run.stop,
            )
        run.exit, run.summary = Exit(summary.exit), summary.to_json()
        run.reporter.note(
            f"{out}: {summary.rows:,} rows of {summary.documents:,} documents in {summary.shards:,} shards "
            f"({summary.kept:,} were there). The collection has {summary.store_count:,} rows."
        )
