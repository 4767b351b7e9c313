"""m3index eval and m3index tune: compare search modes, and find the best weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
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
from m3index.search.options import SynonymFile
from m3index.store.options import Connection
from m3index.wording import many

if TYPE_CHECKING:
    from m3index.evaluate.coverage import Coverage
    from m3index.evaluate.formats import Qrels
    from m3index.evaluate.report import QueryDifference, Report
    from m3index.evaluate.runs import Run
    from m3index.evaluate.tune import Setting, Tuning
    from m3index.search.options import SearchOptions
    from m3index.search.result import SearchResult
    from m3index.types import Hit, Query


@command(apps.app, "eval", panel=apps.QUALITY)
def evaluate(
    session: Session,
    options: EvalOptions,
    synonyms: SynonymFile,
    connection: Connection,
    model: Model,
    output: Output,  # noqa: ARG001  (the session has it)
) -> None:
    """Compare dense, sparse, hybrid and reranked search, with confidence intervals and paired tests."""
    from m3index.evaluate.coverage import cover
    from m3index.evaluate.formats import read_qrels, read_queries
    from m3index.evaluate.measures import at_most, check_measures, score_run
    from m3index.evaluate.report import query_differences, report, report_json
    from m3index.evaluate.runs import read_run

    check_measures(options.measures)
    measures = options.measures if options.queries is None else at_most(options.measures, options.k)
    qrels = read_qrels(options.qrels)
    runs: dict[str, Run] = {Path(path).stem: read_run(path) for path in options.run}
    if len(runs) < len(options.run):
        raise UsageError("Two run files have the same name. Rename one to distinguish them.")
    queries = read_queries(options.queries) if options.queries is not None else []
    coverage = cover(
        {query.query_id for query in queries} or {query_id for run in runs.values() for query_id in run},
        qrels,
        options.queries or ", ".join(options.run),
        complete=options.complete,
    )
    _warn(session, coverage.warnings)
    _warn(session, _gaps(runs, qrels, measures, coverage.queries))
    if queries:
        runs |= _search(session, coverage, queries, options, qrels, synonyms, connection, model)
    scores = {name: score_run(run, qrels, measures, coverage.queries) for name, run in runs.items()}
    result = report(scores, test=options.test)
    first, *_, last = [*scores.values()] * 2
    if options.differences is not None:
        _write(Path(options.differences), query_differences(first, last, measures[0]))
    if options.plot is not None:
        from m3index.evaluate.plots import plot_report

        plot_report(result, Path(options.plot))
    searched = {} if options.queries is None else {"k": options.k, "depth": options.leg_depth}
    counts = {"not_asked": coverage.not_asked, "not_judged": coverage.not_judged}
    session.reporter.result({**report_json(result), **counts, **searched})
    if not session.as_json:
        _table(result, options if searched else None)


def _warn(session: Session, warnings: Iterable[str]) -> None:
    for warning in warnings:
        session.reporter.warning(warning)


def _gaps(
    runs: Mapping[str, Run], qrels: Qrels, measures: Sequence[str], queries: Sequence[str]
) -> Iterator[str]:
    """Sentences on what run files lack of the evaluated queries, of the hits and of the judged documents."""
    from m3index.evaluate.measures import hits_needed

    for name, run in runs.items():
        empty = sum(not run.get(query_id) for query_id in queries)
        if empty:
            yield (
                f"{name} has no documents for {empty:,} of the {len(queries):,} queries; "
                "the mean counts them as 0."
            )
        longest = max((len(run.get(query_id, ())) for query_id in queries), default=0)
        for measure in measures:
            if longest < (cut := hits_needed(measure, 0)):
                yield (
                    f"{name} has at most {many(longest, 'document')} for a query, "
                    f"fewer than the {cut:,} of {measure}."
                )
        if not any(qrels[query_id].get(id_) for query_id in queries for id_ in run.get(query_id, ())):
            yield f"{name} has no document that is judged relevant. Are the judgements for the same corpus?"


def _search(
    session: Session,
    coverage: Coverage,
    queries: Sequence[Query],
    options: EvalOptions,
    qrels: Qrels,
    synonyms: SynonymFile,
    connection: Connection,
    model: Model,
) -> dict[str, Run]:
    """A run of the evaluated queries for each mode, and one more with a reranker. Raises UsageError."""
    from m3index.evaluate.coverage import find_relevant
    from m3index.evaluate.runs import as_run

    asked = coverage.select(queries)
    runs: dict[str, Run] = {}
    with opened(session, connection, model, synonyms=synonyms) as index:
        current = index.current()
        relevant = find_relevant(index.store, current.name, qrels, coverage.queries, options.source)
        _warn(session, relevant.warnings)
        refused: dict[str, None] = {}
        for name, search_options in _variants(options, current.spec.sparse).items():
            session.reporter.stage(f"{name}: {many(len(asked), 'query', 'queries')}")
            results: dict[str, Sequence[Hit]] = {}
            for done, result in enumerate(index.run(asked, search_options), 1):
                results[result.query.query_id] = result.hits
                refused |= dict.fromkeys(_refusals(result))
                session.reporter.progress(Progress(documents=done, total=len(asked), unit="queries"))
            runs[name] = as_run(results)
        _warn(session, refused)
    session.reporter.close()
    return runs


def _refusals(result: SearchResult) -> list[str]:
    """A sentence on a query that could not be searched."""
    return (
        [f"query {result.query.query_id} counts as 0. {' '.join(result.notes)}"] if result.is_refused else []
    )


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
                "rerank_depth": options.rerank_depth,
                "rerank_weights": options.rerank_weights,
            },
        )
    return variants


def _table(result: Report, searched: EvalOptions | None) -> None:
    """searched: the options of the searches; None if only run files are evaluated."""
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
    if searched is not None:
        reranked = f", {many(searched.rerank_count, 'hit')} reranked" if searched.rerank is not None else ""
        typer.echo(
            f"Each query: {many(searched.k, 'hit')}, {many(searched.leg_depth, 'document')} from each leg"
            f"{reranked}."
        )
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
    synonyms: SynonymFile,
    connection: Connection,
    model: Model,
    output: Output,  # noqa: ARG001
) -> None:
    """Choose weights, k and depth of the fusion, and measure the gain on held-out queries.

    With --without-labels: measure the dense leg by queries made of stored passages, for fusion by evidence.
    """
    if options.queries is None:
        _calibrate(session, connection, model)
        return
    from m3index import settings
    from m3index.evaluate import tune as tuning
    from m3index.evaluate.coverage import cover, find_relevant
    from m3index.evaluate.formats import read_qrels, read_queries
    from m3index.evaluate.held import hold, silver_qrels
    from m3index.evaluate.positional import with_cut

    measure = with_cut(options.measure, options.depth)
    queries = read_queries(options.queries)
    qrels = read_qrels(options.qrels) if options.qrels is not None else {}
    coverage = cover({query.query_id for query in queries}, qrels, options.queries) if qrels else None
    if coverage is not None:
        _warn(session, coverage.warnings)
        queries = coverage.select(queries)
    with opened(session, connection, model, synonyms=synonyms) as index:
        current, relevant = index.current(), None
        if coverage is not None:
            relevant = find_relevant(index.store, current.name, qrels, coverage.queries, options.source)
            _warn(session, relevant.warnings)
        session.reporter.stage(
            f"searching for {many(len(queries), 'query', 'queries')}, {many(options.depth, 'document')} "
            "from each leg"
        )
        results = list(index.run(queries, options.searched))
    sources = (
        {hit.source for result in results for hit in result.hits} if relevant is None else relevant.sources
    )
    _warn(session, [warning for result in results for warning in _refusals(result)])
    held = hold(results, qrels or silver_qrels(results), sorted(sources))
    if len(held) < len(queries):
        session.reporter.warning(
            f"No document is relevant for {len(queries) - len(held):,} of the {len(queries):,} queries; "
            "the tuning is without them."
        )
    depths = sorted({*(depth for depth in tuning.DEPTHS if depth < options.depth), options.depth})
    tuned = tuning.tune(
        held, measure, depths=depths, folds=options.folds, labels="qrels" if qrels else "silver"
    )
    if options.plot is not None:
        from m3index.evaluate.plots import plot_tuning

        plot_tuning(tuned, Path(options.plot))
    session.reporter.result(tuning.tuning_json(tuned))
    if not session.as_json:
        _show(tuned)
    if not options.write:
        return
    if tuned.recommended is None:
        session.reporter.note("Wrote nothing: without weights, the default fusion is as good.")
    else:
        located = settings.find()
        path = Path(settings.FILE_NAME) if located is None else located.path
        settings.write_table(path, "search", _search_values(tuned.recommended))
        session.reporter.note(f"Wrote the weights to [search] in {path}.")


def _calibrate(session: Session, connection: Connection, model: Model) -> None:
    with opened(session, connection, model) as index:
        session.reporter.stage("measuring how well the dense leg finds passages again")
        found = index.calibrate()
    session.reporter.result({"type": "calibration", "dense_trust": found.dense_trust, **asdict(found)})
    if not session.as_json:
        typer.echo(found.sentence)


def _search_values(setting: Setting) -> dict[str, str | float | int]:
    weights = ",".join(f"{leg}={weight:g}" for leg, weight in setting.weights.items())
    return {"weights": weights, "rrf_k": setting.k, "depth": setting.depth}


def _show(result: Tuning) -> None:
    from m3index.cli.show import pairs

    def described(value: float, setting: Setting) -> str:
        return f"{value:.4f}  ({_setting(setting)})"

    gain = result.gain
    p = "p < 0.001" if gain.p < 0.001 else f"p = {gain.p:.3f}"
    kind = "judgements" if result.labels == "qrels" else "silver labels of the reranker, not human judgements"
    recommended = "none: the gain over the default is not significant"
    if result.recommended is not None:
        values = _search_values(result.recommended)
        recommended = f"--weights {values['weights']} --rrf-k {values['rrf_k']:g} --depth {values['depth']}"
    pairs(
        [
            (result.measure, f"on {many(result.queries, 'query', 'queries')}, with {kind}"),
            ("default", f"{result.default_value:.4f}  (fusion by evidence)"),
            ("equal weights", described(result.baseline_value, result.baseline)),
            ("best on all", described(result.best_value, result.best)),
            (
                "held-out gain",
                f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], {p}, "
                f"{gain.wins} won, {gain.losses} lost, {gain.ties} tied",
            ),
            ("recommended", recommended),
        ]
    )


def _setting(setting: Setting) -> str:
    return f"sparse {setting.share:g}, k {setting.k:g}, depth {setting.depth}"
