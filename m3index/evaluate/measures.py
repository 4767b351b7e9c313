"""Measures by name, query by query, as computed by ir-measures (and so by trec_eval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3index.errors import UsageError
from m3index.evaluate.coverage import cover
from m3index.evaluate.formats import Qrels
from m3index.evaluate.runs import Run
from m3index.wording import many

Values: TypeAlias = NDArray[np.float64]

DEFAULT_MEASURES = ("nDCG@10", "Recall@100", "MRR@10")


@dataclass(frozen=True, slots=True)
class Scores:
    """The values of one run. values: by measure, named as given: (queries,) in the order of query_ids."""

    query_ids: tuple[str, ...]
    values: Mapping[str, Values]

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(self.values)

    def mean(self, measure: str) -> float:
        return float(self.values[measure].mean())

    def means(self) -> dict[str, float]:
        return {measure: self.mean(measure) for measure in self.values}


def score_run(
    run: Run,
    qrels: Qrels,
    measures: Sequence[str] = DEFAULT_MEASURES,
    queries: Sequence[str] | None = None,
) -> Scores:
    """The value of each measure for each query; one for which the run has no documents counts as 0.

    A measure is any name in ir-measures ("nDCG@10", "AP(rel=2)", "Success@5"), in upper or lower case.
    queries: judged queries (see `cover`); by default those of the run, as in trec_eval without -c. Raises
    UsageError for an unknown measure, or if run and judgements share no query.
    """
    library = _ir_measures()
    parsed = {name: _parse(library, name) for name in measures}
    query_ids = tuple(queries if queries is not None else cover(run, qrels, "the run").queries)
    number = {query_id: i for i, query_id in enumerate(query_ids)}
    values = {name: np.zeros(len(query_ids)) for name in measures}
    names: dict[Any, list[str]] = {}
    for name, measure in parsed.items():
        names.setdefault(measure, []).append(name)
    try:
        for metric in library.iter_calc(list(names), _plain(qrels, query_ids), _plain(run, query_ids)):
            for name in names[metric.measure]:
                values[name][number[metric.query_id]] = metric.value
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"These measures cannot be computed: {error}.") from error
    return Scores(query_ids, values)


def check_measures(measures: Sequence[str]) -> None:
    """Raises UsageError unless each is the name of a measure, before a run takes hours."""
    library = _ir_measures()
    for name in measures:
        _parse(library, name)


def at_most(measures: Sequence[str], hits: int) -> tuple[str, ...]:
    """The measures of rankings that end after `hits` documents: one without a cut-off gets this one, so that
    its name says what it counts. Raises UsageError for a greater cut-off, and for an unknown measure."""
    library = _ir_measures()
    named: dict[str, None] = {}
    for name in measures:
        measure = _parse(library, name)
        cut = _cut(measure)
        if cut is not None and cut > hits:
            raise UsageError(
                f"{name} needs {many(cut, 'hit')} for each query, but k is {hits:,}. "
                f"Raise k to at least {cut:,}, or choose another measure."
            )
        has_cut = cut is not None or "cutoff" not in measure.SUPPORTED_PARAMS
        named[name if has_cut else f"{name}@{hits}"] = None
    return tuple(named)


def hits_needed(measure: str, least: int) -> int:
    """The number of hits for each query that the measure needs, at least `least`. Raises UsageError for an
    unknown measure."""
    return max(least, _cut(_parse(_ir_measures(), measure)) or 0)


def _cut(measure: Any) -> int | None:
    """The cut-off of a measure; None without one."""
    cut: int | None = measure.params.get("cutoff")
    return cut


def _parse(library: ModuleType, name: str) -> Any:
    known = {measure.lower(): measure for measure in library.measures.registry}
    family = name.split("@")[0].split("(")[0]
    spelled = known.get(family.lower(), family) + name[len(family) :]
    try:
        return library.parse_measure(spelled)
    except (NameError, ValueError):
        raise UsageError(
            f"There is no measure {name!r}; examples are nDCG@10, Recall@100, MRR@10, AP, P@5 and Success@5."
        ) from None


def _ir_measures() -> ModuleType:
    try:
        import ir_measures
    except ImportError:
        raise UsageError("Measures need ir-measures: pip install 'm3index[eval]'.") from None
    module: ModuleType = ir_measures
    return module


def _plain(table: Mapping[str, Mapping[str, Any]], query_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {query_id: dict(table.get(query_id, {})) for query_id in query_ids}
