"""m3index search: one query, its hits."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3index.cli import options
from m3index.cli.session import Session, session
from m3index.errors import UsageError
from m3index.types import DEFAULT_COLLECTION, DEFAULT_SOURCE

if TYPE_CHECKING:
    from m3index.api import Index
    from m3index.search.options import SearchOptions
    from m3index.search.searcher import SearchResult


class Format(StrEnum):
    TABLE = "table"
    JSONL = "jsonl"
    IDS = "ids"
    TREC = "trec"


K = Annotated[
    int, typer.Option("-k", envvar="M3INDEX_K", metavar="N", help="How many hits.", rich_help_panel="Search")
]
ModeOption = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_MODE",
        metavar="MODE",
        rich_help_panel="Search",
        help="hybrid (both legs), dense or sparse.",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_WEIGHTS",
        metavar="LEG=W,...",
        rich_help_panel="Search",
        show_default="equal",
        help="Weights of the legs: dense=0.7,sparse=0.3.",
    ),
]
RrfK = Annotated[
    float,
    typer.Option(
        envvar="M3INDEX_RRF_K",
        metavar="K",
        rich_help_panel="Search",
        help="The k of reciprocal rank fusion, w / (k + rank).",
    ),
]
Fusion = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_FUSION",
        metavar="METHOD",
        rich_help_panel="Search",
        help="rrf, minmax, dbsf, arctan, or server: Milvus's own where it gives the same (docs/search.md).",
    ),
]
Depth = Annotated[
    Optional[int],  # noqa: UP045  (typer evaluates it)
    typer.Option(
        envvar="M3INDEX_DEPTH",
        metavar="N",
        rich_help_panel="Search",
        show_default="max(100, 10 k)",
        help="Documents that each leg yields before fusion.",
    ),
]
Passages = Annotated[
    bool,
    typer.Option(
        "--passages",
        metavar="",
        envvar="M3INDEX_PASSAGES",
        rich_help_panel="Search",
        help="Passages as hits, instead of documents by their best passage.",
    ),
]
GroupBy = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_GROUP_BY",
        metavar="FIELD",
        rich_help_panel="Search",
        show_default="none",
        help="Only the best hit for each value of this declared field.",
    ),
]
Rerank = Annotated[
    str,
    typer.Option(
        envvar="M3INDEX_RERANK",
        metavar="MODEL",
        rich_help_panel="Search",
        show_default="none",
        help="Rerank the first hits: colbert or m3 (the encoder's heads), or a cross-encoder's name.",
    ),
]
RerankDepth = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        envvar="M3INDEX_RERANK_DEPTH",
        metavar="N",
        rich_help_panel="Search",
        show_default="max(50, k)",
        help="How many hits are reranked.",
    ),
]
SourceFilter = Annotated[
    str,
    typer.Option(
        "--source",
        envvar="M3INDEX_SEARCH_SOURCE",
        metavar="NAME",
        rich_help_panel="Search",
        show_default="all",
        help="Only documents of this corpus.",
    ),
]


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.", show_default=False)] = "",
    k: K = 10,
    mode: ModeOption = "hybrid",
    weights: Weights = "",
    rrf_k: RrfK = 60.0,
    fusion: Fusion = "rrf",
    depth: Depth = None,
    filter_: options.FilterText = "",
    where: options.Where = [],  # noqa: B006  (typer copies it)
    source: SourceFilter = "",
    tenant: options.TenantFilter = None,
    passages: Passages = False,
    group_by: GroupBy = "",
    rerank: Rerank = "",
    rerank_depth: RerankDepth = None,
    rerank_weights: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_RERANK_WEIGHTS",
            metavar="PART=W,...",
            rich_help_panel="Search",
            show_default="dense=0.4,sparse=0.2,colbert=0.4",
            help="Weights of --rerank m3.",
        ),
    ] = "",
    like: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_LIKE",
            metavar="DOC_ID",
            rich_help_panel="Search",
            show_default="none",
            help="Instead of a query: the documents nearest to this one.",
        ),
    ] = "",
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            metavar="",
            envvar="M3INDEX_EXPLAIN",
            rich_help_panel="Search",
            help="Show each leg's rank, score and part, what matched, and where other weights lead.",
        ),
    ] = False,
    server: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_SERVER",
            metavar="URL",
            rich_help_panel="Server",
            show_default="none",
            help="Ask a running m3index serve, which has the model loaded; its token: M3INDEX_SERVE_TOKEN.",
        ),
    ] = "",
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    encoder: options.Encoder = "",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    dim: options.Dim = None,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            envvar="M3INDEX_FORMAT",
            rich_help_panel="Output",
            help="table for people, jsonl, ids, or trec (a TREC run).",
        ),
    ] = Format.TABLE,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search a collection: the dense and the lexical leg, fused by weighted reciprocal rank."""
    shown = Format.JSONL if as_json else format_
    given = dict(locals())
    with session("search", as_json=as_json, quiet=quiet) as run:
        if bool(query.strip()) == bool(like):
            raise UsageError(
                "Give a query, or --like DOC_ID." if not like else "Give a query or --like, not both."
            )
        result = _from_server(given) if server else _from_index(run, given)
        for note in result.notes:
            run.reporter.note(note)
        _show(result, shown)
        run.summary |= {"collection": collection, "hits": len(result.hits)}


_WORDS = ("k", "mode", "rrf_k", "fusion", "depth", "where", "source", "tenant", "passages", "group_by")
_RERANKING = ("rerank", "rerank_depth", "explain")


def _from_index(run: Session, given: dict[str, Any]) -> SearchResult:
    with options.opened(run, given) as index:
        names = (*_WORDS, *_RERANKING, "weights", "filter_", "rerank_weights")
        chosen = search_options(index, **{name: given[name] for name in names})
        if given["like"]:
            source, tenant = given["source"] or DEFAULT_SOURCE, given["tenant"]
            return index.like(given["like"], source, chosen, tenant=tenant)
        return index.search(given["query"], chosen)


def _from_server(given: dict[str, Any]) -> SearchResult:
    from m3index.search.weights import parse_weights
    from m3index.serve.client import RemoteIndex

    remote = RemoteIndex(given["server"], os.environ.get("M3INDEX_SERVE_TOKEN"), timeout=given["timeout"])
    words = {name: given[name] for name in (*_WORDS, *_RERANKING)}
    words |= {"filter": given["filter_"], "weights": parse_weights(given["weights"])}
    words["rerank_weights"] = parse_weights(given["rerank_weights"])
    if given["like"]:
        return remote.like(given["like"], **words)
    return remote.search(given["query"], **words)


def search_options(
    index: Index,
    *,
    k: int,
    mode: str,
    weights: str,
    rrf_k: float,
    fusion: str,
    depth: int | None,
    filter_: str,
    where: list[str],
    source: str,
    passages: bool,
    group_by: str,
    rerank: str,
    rerank_depth: int | None,
    rerank_weights: str = "",
    tenant: str | None = None,
    explain: bool = False,
    texts: bool = True,
) -> SearchOptions:
    """The command line's words as SearchOptions. Shared by the commands that search."""
    from m3index.search.options import SearchOptions
    from m3index.search.weights import parse_weights

    return SearchOptions(
        k=k,
        mode=mode,  # type: ignore[arg-type]  # checked there
        weights=parse_weights(weights),
        rrf_k=rrf_k,
        fusion=fusion,  # type: ignore[arg-type]
        depth=depth,
        where=index.where(where, filter_ or None, source or None, tenant),
        passages=passages,
        group_by=group_by or None,
        rerank=index.reranker(rerank, parse_weights(rerank_weights)) if rerank else None,
        rerank_depth=rerank_depth,
        explain=explain,
        texts=texts,
    )


def _show(result: SearchResult, shown: Format) -> None:
    from m3index.cli import show

    match shown:
        case Format.TABLE:
            show.table(result)
        case Format.JSONL:
            show.jsonl(result)
        case Format.IDS:
            show.ids(result)
        case Format.TREC:
            show.trec(result)
