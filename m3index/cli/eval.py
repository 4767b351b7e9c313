"""m3index eval: what each way of searching is worth on judged queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3index.cli import options
from m3index.cli import search as one
from m3index.cli.session import Session, session
from m3index.errors import UsageError
from m3index.types import DEFAULT_COLLECTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m3index.evaluate.report import QueryDifference, Report
    from m3index.evaluate.runs import Run
    from m3index.types import Hit

_EVALUATE = "Evaluation"

Queries = Annotated[
    Optional[Path],  # noqa: UP045  (typer evaluates it)
    typer.Option(
        envvar="M3INDEX_QUERIES",
        metavar="FILE",
        rich_help_panel=_EVALUATE,
        show_default="none",
        help="Queries: BEIR queries.jsonl, TSV (id, text) or TREC topics.",
    ),
]
Qrels = Annotated[
    Path,
    typer.Option(
        envvar="M3INDEX_QRELS",
        metavar="FILE",
        rich_help_panel=_EVALUATE,
        show_default=False,
        help="Judgements: BEIR TSV or TREC qrels.",
    ),
]
Plot = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        envvar="M3INDEX_PLOT",
        metavar="FILE",
        rich_help_panel="Output",
        show_default="none",
        help="Also draw it: .png or .svg.",
    ),
]


def evaluate(
    qrels: Qrels,
    queries: Queries = None,
    run_files: Annotated[
        list[Path],
        typer.Option(
            "--run",
            envvar="M3INDEX_RUN",
            metavar="FILE",
            rich_help_panel=_EVALUATE,
            show_default="none",
            help="Run file to judge, instead of or beside searching. Repeatable.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
    modes: Annotated[
        list[str],
        typer.Option(
            "--mode",
            envvar="M3INDEX_MODES",
            metavar="MODE",
            rich_help_panel=_EVALUATE,
            show_default="dense, sparse and hybrid, as the collection has them",
            help="Ways to search, side by side. Repeatable.",
        ),
    ] = [],  # noqa: B006
    measures: Annotated[
        list[str],
        typer.Option(
            "--measure",
            "-m",
            envvar="M3INDEX_MEASURES",
            metavar="NAME",
            rich_help_panel=_EVALUATE,
            help="nDCG@10, Recall@100, MRR@10, AP, Success@5 ... (any of ir-measures). Repeatable.",
        ),
    ] = ["nDCG@10", "Recall@100", "MRR@10"],  # noqa: B006
    test: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_TEST",
            metavar="TEST",
            rich_help_panel=_EVALUATE,
            help="Paired test of the differences: randomisation or t.",
        ),
    ] = "randomisation",
    differences: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            envvar="M3INDEX_DIFFERENCES",
            metavar="FILE",
            rich_help_panel="Output",
            show_default="none",
            help="Write which queries the last way won and lost against the first, as TSV.",
        ),
    ] = None,
    plot: Plot = None,
    k: Annotated[
        int,
        typer.Option(
            "-k",
            envvar="M3INDEX_RUN_K",
            metavar="N",
            rich_help_panel="Search",
            help="Hits for each query.",
        ),
    ] = 100,
    weights: one.Weights = "",
    rrf_k: one.RrfK = 60.0,
    fusion: one.Fusion = "rrf",
    depth: one.Depth = None,
    filter_: options.FilterText = "",
    where: options.Where = [],  # noqa: B006
    source: one.SourceFilter = "",
    tenant: options.TenantFilter = None,
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
    """Judge dense, sparse, hybrid and reranked search side by side, with intervals and paired tests."""
    given = dict(locals())
    with session("eval", as_json=as_json, quiet=quiet) as going:
        from m3index.evaluate.formats import read_qrels
        from m3index.evaluate.measures import check_measures, score_run
        from m3index.evaluate.report import query_differences, report, report_json
        from m3index.evaluate.runs import read_run

        if test not in ("randomisation", "t"):
            raise UsageError(f"--test is randomisation or t, not {test!r}.")
        if queries is None and not run_files:
            raise UsageError("Give --queries to search for, or a --run FILE to judge.")
        check_measures(measures)
        judged = read_qrels(qrels)
        runs: dict[str, Run] = {path.stem: read_run(path) for path in run_files}
        if len(runs) < len(run_files):
            raise UsageError("Two run files have the same name; rename one, so that they can be told apart.")
        if queries is not None:
            runs |= _search(going, given, queries, set(judged))
        scores = {name: score_run(run, judged, measures) for name, run in runs.items()}
        found = report(scores, test=test)  # type: ignore[arg-type]  # checked above
        first, *_, last = [*scores.values()] * 2
        lost_and_won = query_differences(first, last, measures[0])
        if differences is not None:
            _write(differences, lost_and_won)
        if plot is not None:
            from m3index.evaluate.plots import plot_report

            plot_report(found, plot)
        going.reporter.result(report_json(found))
        if not as_json:
            _table(found)


def _search(going: Session, given: dict[str, Any], queries: Path, judged: set[str]) -> dict[str, Run]:
    """The runs of each mode over the judged queries; with a reranker, one more of its order."""
    from m3index.evaluate.formats import read_queries
    from m3index.evaluate.runs import as_run
    from m3index.progress import Progress

    asked = [query for query in read_queries(queries) if query.query_id in judged]
    if not asked:
        raise UsageError(f"No query of {queries} is judged in {given['qrels']}.")
    runs: dict[str, Run] = {}
    names = (
        "k",
        "weights",
        "rrf_k",
        "fusion",
        "depth",
        "filter_",
        "where",
        "source",
        "tenant",
        "rerank_depth",
    )
    same = {name: given[name] for name in names} | {"passages": False, "group_by": "", "texts": False}
    with options.opened(going, given) as index:
        sparse = index.target().spec.sparse
        modes = given["modes"] or (["dense"] if sparse == "none" else ["dense", "sparse", "hybrid"])
        ways = [(mode, mode, "") for mode in modes]
        if given["rerank"]:
            ways.append((f"{modes[-1]} reranked", modes[-1], given["rerank"]))
        for name, mode, rerank in ways:
            alone = same | ({"weights": ""} if mode != "hybrid" else {})
            if rerank:
                alone["rerank_depth"] = given["rerank_depth"] or given["k"]
            chosen = one.search_options(index, mode=mode, rerank=rerank, **alone)
            going.reporter.stage(f"{name}: {len(asked):,} queries")
            results: dict[str, Sequence[Hit]] = {}
            for done, result in enumerate(index.run(asked, chosen), 1):
                results[result.query.query_id] = result.hits
                going.reporter.progress(Progress(documents=done, total=len(asked), unit="queries"))
            runs[name] = as_run(results)
    going.reporter.close()
    return runs


def _table(found: Report) -> None:
    from rich.table import Table

    from m3index.cli.show import console

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{found.queries:,} queries")
    for measure in found.measures:
        table.add_column(measure, justify="right")
    for name, values in found.estimates.items():
        cells = [f"{e.mean:.4f} [{e.low:.3f}, {e.high:.3f}]" for e in values.values()]
        table.add_row(name, *cells)
    out.print(table)
    if found.comparisons:
        out.print()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("difference", "measure", "mean", "p (Holm)", "won", "lost", "tied"):
            table.add_column(name, justify="left" if name in ("difference", "measure") else "right")
        for c in found.comparisons:
            d = c.difference
            table.add_row(
                f"{c.b} - {c.a}",
                c.measure,
                f"{d.mean:+.4f}",
                "< 0.001" if c.p_holm < 0.001 else f"{c.p_holm:.3f}",
                *(str(n) for n in (d.wins, d.losses, d.ties)),
            )
        out.print(table)


def _write(path: Path, rows: list[QueryDifference]) -> None:
    lines = ["query\tfirst\tlast\tgain"]
    lines += [f"{row.query_id}\t{row.a:.6f}\t{row.b:.6f}\t{row.gain:+.6f}" for row in rows]
    try:
        path.write_text("\n".join(lines) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
