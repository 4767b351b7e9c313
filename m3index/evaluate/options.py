"""The options of quality gates, evaluation and tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from m3index.errors import UsageError
from m3index.evaluate.gate import Gate, QualityGate
from m3index.index.options import ReindexOptions
from m3index.options import Custom, FileName, Flag, Number, OneOf, Text, Texts, Whole, group, option
from m3index.search.options import MODES, RUN_HITS, FacetsOver, Mode, Narrowing, Reranking, SearchOptions
from m3index.store.base import MAX_LIMIT

QUERIES_HELP = "File of queries: BEIR queries.jsonl, TSV (id, text) or TREC topics."
QRELS_HELP = "File of relevance judgements: BEIR TSV or TREC qrels."


def _modes(value: object) -> tuple[str, ...]:
    modes = Texts().check(value)
    if not modes or any(mode not in MODES for mode in modes):
        raise ValueError
    return modes


@group
class GateOptions(ReindexOptions):
    """A new generation and its quality gate."""

    panel = "Generation"

    queries: str | None = option(
        FileName(),
        "File of queries for the gate: BEIR queries.jsonl, TSV (id, text) or TREC topics.",
        default=None,
        shown="none",
    )
    qrels: str | None = option(
        FileName(),
        "File of relevance judgements for the gate: BEIR TSV or TREC qrels.",
        default=None,
        shown="none",
    )

    def check(self) -> None:
        if self.gate is not None:
            Gate.parse(self.gate)
            if self.queries is None or self.qrels is None:
                raise UsageError("A gate needs queries and judgements. Give queries and qrels.")
        super().check()

    @property
    def quality_gate(self) -> QualityGate | None:
        """The gate with its queries and judgements, read from the files; None without a gate. Raises
        UsageError."""
        if self.gate is None or self.queries is None or self.qrels is None:
            return None
        from m3index.evaluate.formats import read_qrels, read_queries

        return QualityGate.over(self.gate, read_queries(self.queries), read_qrels(self.qrels), self.queries)


@group
class EvalOptions(SearchOptions):
    """An evaluation that compares ways to search."""

    panel = "Evaluation"

    qrels: str = option(FileName(), QRELS_HELP)
    queries: str | None = option(FileName(), QUERIES_HELP, default=None, shown="none")
    run: Sequence[str] = option(
        Texts("FILE"),
        "Run file to evaluate, instead of or in addition to searching; repeatable.",
        default=(),
        shown="none",
    )
    modes: Sequence[Mode] | None = option(
        Custom(_modes, f"modes from {', '.join(MODES)}", "MODE", is_repeatable=True),
        "Search mode to evaluate; repeatable.",
        default=None,
        flags=("--mode",),
        shown="those of dense, sparse and hybrid that the collection supports",
        harmless=True,
    )
    measures: Sequence[str] = option(
        Texts("NAME"),
        "Measure, such as nDCG@10, Recall@100, MRR@10, AP or Success@5 (any of ir-measures); repeatable. "
        "Without a cut-off, a search is measured at k.",
        default=("nDCG@10", "Recall@100", "MRR@10"),
        flags=("--measure", "-m"),
        harmless=True,
    )
    complete: bool = option(
        Flag(),
        "Average over all judged queries, as trec_eval -c does: one that was not asked, or that no run file "
        "has, counts as 0. By default, it is left out.",
        default=False,
        harmless=True,
    )
    test: Literal["randomisation", "t"] = option(
        OneOf(("randomisation", "t"), "TEST"),
        "Paired significance test of the differences: randomisation or t.",
        default="randomisation",
        harmless=True,
    )
    differences: str | None = option(
        FileName(),
        "TSV file for the queries that the last way won and lost against the first.",
        default=None,
        shown="none",
    )
    plot: str | None = option(
        FileName(), "File for a plot of the results: .png or .svg.", default=None, shown="none"
    )
    k: int = option(
        Whole(1, MAX_LIMIT),
        "Maximum number of hits per query.",
        default=RUN_HITS,
        flags=("-k",),
        harmless=True,
    )
    offset: int = option(
        Whole(0), "Not used: rankings are evaluated from the top.", default=0, flag=False, file=False
    )
    page: int | None = option(
        Whole(1), "Not used: rankings are evaluated from the top.", default=None, flag=False, file=False
    )
    mode: Mode = option(OneOf(MODES, "MODE"), "Search mode; see modes.", default="hybrid", flag=False)
    passages: bool = option(Flag(), "Not used: documents are evaluated.", default=False, flag=False)
    group_by: str | None = option(Text(), "Not used: documents are evaluated.", default=None, flag=False)
    facets: Sequence[str] | None = option(
        Texts("FIELD"), "Not used: documents are evaluated.", default=None, flag=False, file=False
    )
    facets_over: FacetsOver = option(
        OneOf(("found", "filter")), "Not used: documents are evaluated.", default="found", flag=False
    )
    explain: bool = option(Flag(), "Not used: single hits are not shown.", default=False, flag=False)
    texts: bool = option(Flag(), "Not used: single hits are not shown.", default=False, flag=False)

    def check(self) -> None:
        if self.queries is None and not self.run:
            raise UsageError("Give --queries FILE to search, or --run FILE to evaluate.")
        super().check()


@group
class TuneOptions(Reranking, Narrowing):
    """A tuning of the weights, k and depth of the fusion on queries with judgements, or without them the
    measurement that fusion by evidence rests on."""

    panel = "Tuning"

    queries: str | None = option(FileName(), QUERIES_HELP, default=None, shown="none")
    without_labels: bool = option(
        Flag(),
        "Measure how well the dense leg finds stored passages again, by queries made of them, and keep the "
        "result in the collection, for fusion by evidence. A run does it by itself.",
        default=False,
        file=False,
    )
    qrels: str | None = option(FileName(), QRELS_HELP, default=None, shown="silver labels from --rerank")
    measure: str = option(
        Text("NAME"),
        f"Measure to maximise; without a cut-off, at {RUN_HITS}.",
        default="nDCG@10",
        flags=("--measure", "-m"),
        harmless=True,
    )
    depth: int = option(
        Whole(10, MAX_LIMIT),
        "Greatest depth to try: number of documents to retrieve from each leg.",
        default=200,
        harmless=True,
    )
    folds: int = option(Whole(2), "Number of folds of the cross-validation.", default=5, harmless=True)
    write: bool = option(
        Flag(),
        "Write the recommended weights to the table [search] of the configuration file.",
        default=False,
        file=False,
    )
    plot: str | None = option(
        FileName(), "File for a plot of the results: .png or .svg.", default=None, shown="none"
    )

    def check(self) -> None:
        if self.without_labels:
            if self.queries is not None or self.qrels is not None or self.write or self.plot is not None:
                raise UsageError("without_labels takes no queries, qrels, write or plot. Leave them out.")
        elif self.queries is None:
            raise UsageError("Give --queries FILE, or --without-labels.")
        elif self.qrels is None and self.rerank is None:
            raise UsageError("Give --qrels FILE, or --rerank MODEL to label the hits instead.")
        super().check()

    @property
    def searched(self) -> SearchOptions:
        """The search whose legs are fused again with each setting."""
        return SearchOptions(
            k=min(self.depth, 50),
            depth=self.depth,
            where=self.where,
            filter=self.filter,
            source=self.source,
            tenant=self.tenant,
            rerank=None if self.qrels is not None else self.rerank,
            rerank_depth=self.rerank_depth,
            rerank_weights=None if self.qrels is not None else self.rerank_weights,
            texts=False,
        )


@group
class RecallOptions(Narrowing):
    """A measurement of what the index finds of what an exact scan finds."""

    panel = "Recall"

    queries: str | None = option(
        FileName(),
        "File of queries to measure with too: BEIR queries.jsonl, TSV (id, text) or TREC topics.",
        default=None,
        shown="none",
        file=False,
    )
    recall_k: int = option(Whole(1, RUN_HITS), "Number of hits to compare.", default=10, file=False)
    min_recall: float | None = option(
        Number(0.0, 1.0),
        "Recall that each leg and their fusion must reach (exit 16 if one does not).",
        default=None,
        shown="none",
        file=False,
    )
