"""m3index tune: the weights of the legs, chosen on judged queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3index.cli import options
from m3index.cli import search as one
from m3index.cli.eval import Plot
from m3index.cli.session import session
from m3index.errors import UsageError
from m3index.types import DEFAULT_COLLECTION

if TYPE_CHECKING:
    from m3index.evaluate.tune import Setting, Tuning


def tune(
    queries: Annotated[
        Path,
        typer.Option(
            envvar="M3INDEX_QUERIES",
            metavar="FILE",
            show_default=False,
            help="Queries: BEIR queries.jsonl, TSV (id, text) or TREC topics.",
        ),
    ],
    qrels: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_QRELS",
            metavar="FILE",
            show_default="silver labels from --rerank",
            help="Judgements: BEIR TSV or TREC qrels.",
        ),
    ] = "",
    measure: Annotated[
        str,
        typer.Option("--measure", "-m", envvar="M3INDEX_MEASURE", metavar="NAME", help="What to gain."),
    ] = "nDCG@10",
    depth: Annotated[
        int,
        typer.Option(
            envvar="M3INDEX_TUNE_DEPTH", metavar="N", min=10, help="Documents that each leg is asked for."
        ),
    ] = 200,
    folds: Annotated[
        int, typer.Option(envvar="M3INDEX_FOLDS", metavar="N", min=2, help="Parts of the cross-validation.")
    ] = 5,
    rerank: one.Rerank = "",
    rerank_depth: one.RerankDepth = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            metavar="",
            envvar="M3INDEX_TUNE_WRITE",
            rich_help_panel="Output",
            help="Write the recommended weights into the table search of the configuration file.",
        ),
    ] = False,
    plot: Plot = None,
    filter_: options.FilterText = "",
    where: options.Where = [],  # noqa: B006  (typer copies it)
    source: one.SourceFilter = "",
    tenant: options.TenantFilter = None,
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
    """Choose weights, k and depth of the fusion; say on held-out queries whether that gains anything."""
    given = dict(locals())
    with session("tune", as_json=as_json, quiet=quiet) as going:
        from m3index import settings
        from m3index.evaluate import tune as tuning
        from m3index.evaluate.formats import read_qrels, read_queries
        from m3index.evaluate.held import hold, silver_qrels
        from m3index.types import DEFAULT_SOURCE

        if not qrels and not rerank:
            raise UsageError("Give --qrels FILE, or --rerank MODEL to label the hits in their place.")
        asked = read_queries(queries)
        judged = read_qrels(Path(qrels)) if qrels else {}
        if judged:
            asked = [query for query in asked if query.query_id in judged]
        with options.opened(going, given) as index:
            chosen = one.search_options(
                index,
                k=min(depth, 50),
                mode="hybrid",
                weights="",
                rrf_k=60.0,
                fusion="rrf",
                depth=depth,
                filter_=filter_,
                where=where,
                source=source,
                tenant=tenant,
                passages=False,
                group_by="",
                rerank="" if judged else rerank,
                rerank_depth=rerank_depth,
                texts=False,
            )
            going.reporter.stage(f"searching for {len(asked):,} queries, {depth} documents from each leg")
            results = list(index.run(asked, chosen))
        depths = sorted({*(d for d in tuning.DEPTHS if d < depth), depth})
        found = tuning.tune(
            hold(results, judged or silver_qrels(results), (source or DEFAULT_SOURCE,)),
            measure,
            depths=depths,
            folds=folds,
            labels="qrels" if judged else "silver",
        )
        if plot is not None:
            from m3index.evaluate.plots import plot_tuning

            plot_tuning(found, plot)
        going.reporter.result(tuning.tuning_json(found))
        if not as_json:
            _tell(found)
        if write:
            path = settings.find() or Path(settings.FILE_NAME)
            settings.write_table(path, "search", _words(found))
            going.reporter.note(f"Written into [search] of {path}.")


def _words(found: Tuning) -> dict[str, str | float | int]:
    setting = found.recommended
    weights = ",".join(f"{leg}={weight:g}" for leg, weight in setting.weights.items())
    return {"weights": weights, "rrf_k": setting.k, "depth": setting.depth}


def _tell(found: Tuning) -> None:
    from m3index.cli.show import pairs

    def said(value: float, setting: Setting) -> str:
        return f"{value:.4f}  ({_setting(setting)})"

    gain = found.gain
    p = "p < 0.001" if gain.p < 0.001 else f"p = {gain.p:.3f}"
    kind = (
        "judgements" if found.labels == "qrels" else "silver labels of the reranker, not people's judgements"
    )
    words = _words(found)
    pairs(
        [
            (found.measure, f"on {found.queries:,} queries, by {kind}"),
            ("equal weights", said(found.baseline_value, found.baseline)),
            ("best on all", said(found.best_value, found.best)),
            (
                "held-out gain",
                f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], {p}, "
                f"{gain.wins} won, {gain.losses} lost, {gain.ties} tied",
            ),
            (
                "recommended",
                f"--weights {words['weights']} --rrf-k {found.recommended.k:g} --depth {words['depth']}"
                + ("" if found.significant else "  (the gain is not significant: equal weights)"),
            ),
        ]
    )


def _setting(setting: Setting) -> str:
    return f"sparse {setting.share:g}, k {setting.k:g}, depth {setting.depth}"
