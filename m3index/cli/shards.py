"""m3index shards encode, load and export."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3index.addresses import redacted
from m3index.cli import apps
from m3index.cli.command import command, need
from m3index.cli.ingest import Paths
from m3index.cli.options import CorpusOutput, MetricsFile, Output
from m3index.cli.service import check_input, opened, quarantined
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.errors import Exit, UsageError
from m3index.options import changed
from m3index.scale.options import Cluster, Destination, EncodeOptions, LoadOptions, ShardOptions
from m3index.store.options import Connection
from m3index.wording import many

if TYPE_CHECKING:
    from m3index.progress import Reporter
    from m3index.scale.encode import EncodeSummary
    from m3index.store.bulk import Importer


@command(apps.shards, "encode")
def encode(
    session: Session,
    paths: Paths,
    folder: Destination,
    options: EncodeOptions,
    cluster: Cluster,
    model: Model,
    output: CorpusOutput,  # noqa: ARG001  (the session has it)
) -> None:
    """Encode a corpus into Parquet shards, for `m3index shards load`. Existing shards are kept."""
    check_input(paths, options)
    worker = options.worker
    share = "" if worker.of == 1 else f"{worker.index}-of-{worker.of}"
    with quarantined(session, options, folder.out, "shards", options.source, share) as (options, reporter):
        if cluster.engine == "ray":
            summary = _on_ray(paths, folder, options, cluster, model, reporter)
        else:
            summary = _in_process(session, paths, folder, options, model, reporter)
    session.exit, session.summary = Exit(summary.exit), summary.to_json()
    session.reporter.note(
        f"{folder.out}: {many(summary.written, 'shard')} written, {summary.kept:,} kept, of "
        f"{summary.shards:,}. {many(summary.passages, 'passage')}, {many(summary.tokens, 'token')} in "
        f"{summary.seconds:.1f} s."
    )


def _in_process(
    session: Session,
    paths: list[str],
    folder: Destination,
    options: EncodeOptions,
    model: Model,
    reporter: Reporter,
) -> EncodeSummary:
    from m3index import files
    from m3index.corpus.readers import open_corpus
    from m3index.scale.encode import encode as encode_here

    corpus, encoder = open_corpus(paths, options), model.load()
    corpus.apart = lambda: encoder.workers > 0
    try:
        with session.stop.listening(session.reporter):
            out = files.Folder(folder.out)
            return encode_here(corpus, out, encoder, options, reporter=reporter, stop=session.stop)
    finally:
        encoder.close()


def _on_ray(
    paths: list[str],
    folder: Destination,
    options: EncodeOptions,
    cluster: Cluster,
    model: Model,
    reporter: Reporter,
) -> EncodeSummary:
    need("ray", extra="ray")
    if options.worker.of != 1:
        raise UsageError("--shard cannot be combined with Ray, which distributes the work itself.")
    from m3index import files
    from m3index.corpus.remote import is_remote
    from m3index.scale.on_ray import CorpusInput, encode_on_ray

    out = files.Folder(folder.out)
    if out.local:
        out = files.Folder(Path(out.location).absolute())
    names = [path if path == "-" or is_remote(path) else str(Path(path).absolute()) for path in paths]
    corpus = CorpusInput(names, options, os.getcwd())
    tokenising = changed(model, {"workers": 0})  # its tasks are processes already
    return encode_on_ray(corpus, out, tokenising.load, options, cluster, reporter=reporter)


@command(apps.shards, "load")
def load(
    session: Session,
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR",
            show_default=False,
            help="Folders written by `shards encode` or `shards export`. Of repeated ids, the first counts.",
        ),
    ],
    options: LoadOptions,
    connection: Connection,
    metrics: MetricsFile,  # noqa: ARG001
    output: Output,  # noqa: ARG001
) -> None:
    """Load shards into a collection. The next load continues an interrupted one."""
    from m3index import files
    from m3index.scale.bulk import bulk_load
    from m3index.scale.load import load as load_shards

    shards = [files.Folder(folder) for folder in folders]
    with (
        opened(session, connection, create=True) as index,
        session.stop.listening(session.reporter),
        quarantined(session, options, connection.uri, connection.collection, "shards") as (options, reporter),
    ):
        if options.bulk is not None:
            need("minio", "azure.storage.blob", "ml_dtypes", extra="bulk")
            summary = bulk_load(
                index.store, _importer(connection), index.collection, shards, files.Folder(options.bulk),
                options, reporter=reporter, stop=session.stop,
            )  # fmt: skip
        else:
            summary = load_shards(
                index.store, index.collection, shards, options, reporter=reporter, stop=session.stop
            )
    session.outcome(summary)


def _importer(connection: Connection) -> Importer:
    from m3index.store.bulk import ServerImporter

    if not connection.uri.startswith(("http://", "https://")):
        raise UsageError(
            f"Bulk import needs a Milvus server (http://host:19530); {redacted(connection.uri)} is not one."
        )
    return ServerImporter(connection.uri, connection.credentials or "", connection.db or "")


@command(apps.shards, "export")
def export(
    session: Session,
    folder: Destination,
    options: ShardOptions,
    connection: Connection,
    output: Output,  # noqa: ARG001
) -> None:
    """Export the rows and vectors of a collection as shards, for `m3index shards load`."""
    from m3index import files
    from m3index.scale.export import export as export_shards

    with opened(session, connection) as index, session.stop.listening(session.reporter):
        summary = export_shards(
            index.store,
            index.collection,
            files.Folder(folder.out),
            dense=options.dense,
            block=options.shard_documents,
            reporter=session.reporter,
            stop=session.stop,
        )
    session.exit, session.summary = Exit(summary.exit), summary.to_json()
    session.reporter.note(
        f"{folder.out}: {many(summary.rows, 'row')} of {many(summary.documents, 'document')} in "
        f"{many(summary.shards, 'shard')} ({summary.kept:,} kept). "
        f"The collection has {many(summary.store_count, 'row')}."
    )
