"""m3index run: many queries into a run file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from m3index.cli import options
from m3index.cli import search as one
from m3index.cli.session import session
from m3index.progress import Progress
from m3index.types import DEFAULT_COLLECTION


def run(
    queries: Annotated[
        Path,
        typer.Argument(
            metavar="QUERIES", help="BEIR queries.jsonl, TSV (id, text) or TREC topics.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            envvar="M3INDEX_OUTPUT",
            metavar="FILE",
            show_default=False,
            help="Run file: .trec, .jsonl or .parquet.",
            rich_help_panel="Output",
        ),
    ],
    tag: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_TAG", metavar="NAME", help="Last column of a TREC run.", rich_help_panel="Output"
        ),
    ] = "m3index",
    k: Annotated[
        int,
        typer.Option(
            "-k", envvar="M3INDEX_RUN_K", metavar="N", help="Hits for each query.", rich_help_panel="Search"
        ),
    ] = 100,
    mode: one.ModeOption = "hybrid",
    weights: one.Weights = "",
    rrf_k: one.RrfK = 60.0,
    fusion: one.Fusion = "rrf",
    depth: one.Depth = None,
    filter_: options.FilterText = "",
    where: options.Where = [],  # noqa: B006  (typer copies it)
    source: one.SourceFilter = "",
    tenant: options.TenantFilter = None,
    passages: one.Passages = False,
    group_by: one.GroupBy = "",
    rerank: one.Rerank = "",
    rerank_depth: one.RerankDepth = None,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    encoder: options.Encoder = "",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    dim: options.Dim = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search for many queries and write a run, which `m3index eval` and trec_eval read."""
    given = dict(locals())
    with session("run", as_json=as_json, quiet=quiet) as going:
        from m3index.evaluate.formats import read_queries
        from m3index.evaluate.runs import RunWriter

        asked = read_queries(queries)
        with (
            options.opened(going, given) as index,
            RunWriter(output, tag=tag) as writer,
        ):
            chosen = one.search_options(
                index, k=k, mode=mode, weights=weights, rrf_k=rrf_k, fusion=fusion, depth=depth,
                filter_=filter_, where=where, source=source, passages=passages, group_by=group_by,
                rerank=rerank, rerank_depth=rerank_depth, tenant=tenant, texts=False,
            )  # fmt: skip
            started, hits, unanswered = time.perf_counter(), 0, 0
            for done, result in enumerate(index.run(asked, chosen), 1):
                writer.write(result.query.query_id, result.hits)
                hits += len(result.hits)
                if not result.hits:
                    unanswered += 1
                    going.reporter.warning(
                        f"query {result.query.query_id}: no hits. {' '.join(result.notes)}"
                    )
                going.reporter.progress(Progress(documents=done, total=len(asked), unit="queries"))
        seconds = time.perf_counter() - started
        rate = len(asked) / seconds
        going.reporter.note(
            f"{len(asked):,} queries, {hits:,} hits, {seconds:.1f} s ({rate:.1f} queries/s): {output}"
        )
        going.summary |= {
            "collection": collection, "queries": len(asked), "hits": hits, "unanswered": unanswered,
            "output": str(output),
        }  # fmt: skip
