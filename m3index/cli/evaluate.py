"""m3index eval and m3index tune: compare search modes, and find the best weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import Output
from m3index.cli.service import opened
from m3index.cli.session import Session
from m3index.encoder.options import Model
from m3index.errors import UsageError
from m3index.evaluate.options import EvalOptions, TuneOptions
from m3index.options import changed
from m3index.output import write_output
from m3index.progress import Progress
from m3index.store.options import Connection
from m3index.types import DEFAULT_SOURCE
from m3index.wording import many

if TYPE_CHECKING:
    from m3index.evaluate.report import QueryDifference, Report
    from m3index.evaluate.runs import Run
    from m3index.evaluate.tune import Setting, Tuning
    from m3index.search.options import SearchOptions
    from m3index.types import Hit


@command(apps.app, "eval", panel=apps.QUALITY)
def evaluate(
    session: Session,
    options: EvalOptions,
    connection: Connection,
    model: Model,
    output: Output,  # noqa: ARG001  (the session has it)
) -> None:
    """Compare dense, sparse, hybrid and reranked search, with confidence intervals and paired tests."""
    from m3index.evaluate.formats import read_qrels
    from m3index.evaluate.measures import check_measures, score_run
    from m3index.evaluate.report import query_differences, report, report_json
    from m3index.evaluate.runs import read_run

    check_measures(options.measures)
    qrels = read_qrels(options.qrels)
    runs: dict[str, Run] = {Path(path).stem: read_run(path) for path in options.run}
    if len(runs) < len(options.run):
        raise UsageError("Two run files have the same name. Rename one to distinguish them.")
    if options.queries is not None:
        runs |= _search(session, options.queries, options, qrels, connection, model)
    scores = {name: score_run(run, qrels, options.measures) for name, run in runs.items()}
    result = report(scores, test=options.test)
    first, *_, last = [*scores.values()] * 2
    if options.differences is not None:
        _write(Path(options.differences), query_differences(first, last, options.measures[0]))
    if options.plot is not None:
        from m3index.evaluate.plots import plot_report

        plot_report(result, Path(options.plot))
    session.reporter.result(report_json(result))
    if not session.as_json:
        _table(result)


def _search(
    session: Session,
    file: str,
    options: EvalOptions,
    qrels: Mapping[str, object],
    connection: Connection,
    model: Model,
) -> dict[str, Run]:
    """A run of the judged queries for each mode, and one more with a reranker. Raises UsageError."""
    from m3index.evaluate.formats import read_queries
    from m3index.evaluate.runs import as_run

    queries = [query for query in read_queries(file) if query.query_id in qrels]
    if not queries:
        raise UsageError(f"{options.qrels} has no judgements for the queries of {file}.")
    runs: dict[str, Run] = {}
    with opened(session, connection, model) as index:
        for name, search_options in _variants(options, index.current().spec.sparse).items():
            session.reporter.stage(f"{name}: {many(len(queries), 'query', 'queries')}")
            results: dict[str, Sequence[Hit]] = {}
            for done, result in enumerate(index.run(queries, search_options), 1):
                results[result.query.query_id] = result.hits
                session.reporter.progress(Progress(documents=done, total=len(queries), unit="queries"))
            runs[name] = as_run(results)
    session.reporter.close()
    return runs


def _variants(options: EvalOptions, sparse: str) -> dict[str, SearchOptions]:
    """The searches to compare, by name. Weights apply only to hybrid; the reranker is an extra variant."""
    modes = options.modes or (("dense",) if sparse == "none" else ("dense", "sparse", "hybrid"))
    plain = changed(options, {"rerank": None, "rerank_depth": None, "rerank_weights": None})
    variants: dict[str, SearchOptions] = {}
    for mode in modes:
        weights = options.weights if mode == "hybrid" else None
        variants[mode] = changed(plain, {"mode": mode, "weights": weights})
    if options.rerank is not None:
        last = variants[modes[-1]]
        variants[f"{modes[-1]} reranked"] = changed(
            last,
            {
                "rerank": options.rerank,
                "rerank_depth": options.rerank_depth or options.k,
                "rerank_weights": options.rerank_weights,
            },
        )
    return variants


def _table(result: Report) -> None:
    from rich.table import Table

    from m3index.cli.show import block

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{many(result.queries, 'query', 'queries')}")
    for measure in result.measures:
        table.add_column(measure, justify="right")
    for name, values in result.estimates.items():
        cells = [f"{e.mean:.4f} [{e.low:.3f}, {e.high:.3f}]" for e in values.values()]
        table.add_row(name, *cells)
    block(table)
    if result.comparisons:
        typer.echo()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("difference", "measure", "mean", "p (Holm)", "won", "lost", "tied"):
            table.add_column(name, justify="left" if name in ("difference", "measure") else "right")
        for c in result.comparisons:
            d = c.difference
            table.add_row(
                f"{c.b} - {c.a}",
                c.measure,
                f"{d.mean:+.4f}",
                "< 0.001" if c.p_holm < 0.001 else f"{c.p_holm:.3f}",
                *(str(n) for n in (d.wins, d.losses, d.ties)),
            )
        block(table)


def _write(path: Path, rows: list[QueryDifference]) -> None:
    lines = ["query\tfirst\tlast\tgain"]
    lines += [f"{row.query_id}\t{row.a:.6f}\t{row.b:.6f}\t{row.gain:+.6f}" for row in rows]
    write_output(path, "\n".join(lines) + "\n")


@command(apps.app, "tune", panel=apps.QUALITY)
def tune(
    session: Session,
    options: TuneOptions,
    connection: Connection,
    model: Model,
    output: Output,  # noqa: ARG001
) -> None:
    """Choose weights, k and depth of the fusion, and measure the gain on held-out queries."""
    from m3index import settings
    from m3index.evaluate import tune as tuning
    from m3index.evaluate.formats import read_qrels, read_queries
    from m3index.evaluate.held import hold, silver_qrels

    queries = read_queries(options.queries)
    qrels = read_qrels(options.qrels) if options.qrels is not None else {}
    if qrels:
        queries = [query for query in queries if query.query_id in qrels]
    with opened(session, connection, model) as index:
        index.current()
        session.reporter.stage(
            f"searching for {many(len(queries), 'query', 'queries')}, {many(options.depth, 'document')} "
            "from each leg"
        )
        results = list(index.run(queries, options.searched))
    depths = sorted({*(depth for depth in tuning.DEPTHS if depth < options.depth), options.depth})
    tuned = tuning.tune(
        hold(results, qrels or silver_qrels(results), (options.source or DEFAULT_SOURCE,)),
        options.measure,
        depths=depths,
        folds=options.folds,
        labels="qrels" if qrels else "silver",
    )
    if options.plot is not None:
        from m3index.evaluate.plots import plot_tuning

        plot_tuning(tuned, Path(options.plot))
    session.reporter.result(tuning.tuning_json(tuned))
    if not session.as_json:
        _show(tuned)
    if options.write:
        path = settings.find() or Path(settings.FILE_NAME)
        settings.write_table(path, "search", _search_values(tuned))
        session.reporter.note(f"Wrote the weights to [search] in {path}.")


def _search_values(result: Tuning) -> dict[str, str | float | int]:
    setting = result.recommended
    weights = ",".join(f"{leg}={weight:g}" for leg, weight in setting.weights.items())
    return {"weights": weights, "rrf_k": setting.k, "depth": setting.depth}


def _show(result: Tuning) -> None:
    from m3index.cli.show import pairs

    def described(value: float, setting: Setting) -> str:
        return f"{value:.4f}  ({_setting(setting)})"

    gain = result.gain
    p = "p < 0.001" if gain.p < 0.001 else f"p = {gain.p:.3f}"
    kind = "judgements" if result.labels == "qrels" else "silver labels of the reranker, not human judgements"
    values = _search_values(result)
    pairs(
        [
            (result.measure, f"on {many(result.queries, 'query', 'queries')}, with {kind}"),
            ("equal weights", described(result.baseline_value, result.baseline)),
            ("best on all", described(result.best_value, result.best)),
            (
                "held-out gain",
                f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], {p}, "
                f"{gain.wins} won, {gain.losses} lost, {gain.ties} tied",
            ),
            (
                "recommended",
                f"--weights {values['weights']} --rrf-k {result.recommended.k:g} --depth {values['depth']}"
                + ("" if result.significant else "  (the gain is not significant: equal weights)"),
            ),
        ]
    )


def _setting(setting: Setting) -> str:
    return f"sparse {setting.share:g}, k {setting.k:g}, depth {setting.depth}"
