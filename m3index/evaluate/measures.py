"""Measures by name, query by query, as computed by ir-measures (and so by trec_eval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3index.errors import UsageError
from m3index.evaluate.formats import Qrels
from m3index.evaluate.runs import Run

Values: TypeAlias = NDArray[np.float64]

DEFAULT_MEASURES = ("nDCG@10", "Recall@100", "MRR@10")
_MANY = 5


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


def score_run(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES) -> Scores:
    """The value of each measure for each query with judgements; a query without an answer counts 0.

    A measure is any name in ir-measures ("nDCG@10", "AP(rel=2)", "Success@5"), in upper or lower case.
    Raises UsageError for an unknown measure, or if run and judgements share no query.
    """
    library = _ir_measures()
    parsed = {name: _parse(library, name) for name in measures}
    query_ids = tuple(sorted(qrels))
    if not query_ids or not any(query_id in run for query_id in query_ids):
        raise UsageError(
            "No query of the run has judgements: "
            f"the run has {_some(run)}, the judgements {_some(qrels)}. Are they for the same queries?"
        )
    number = {query_id: i for i, query_id in enumerate(query_ids)}
    values = {name: np.zeros(len(query_ids)) for name in measures}
    names: dict[Any, list[str]] = {}
    for name, measure in parsed.items():
        names.setdefault(measure, []).append(name)
    try:
        for metric in library.iter_calc(list(names), _plain(qrels), _plain(run)):
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


def _plain(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {query_id: dict(row) for query_id, row in table.items()}


def _some(table: Mapping[str, object]) -> str:
    ids = sorted(table)
    shown = ", ".join(map(repr, ids[:_MANY]))
    return f"{shown} and {len(ids) - _MANY} more" if len(ids) > _MANY else shown or "none"
