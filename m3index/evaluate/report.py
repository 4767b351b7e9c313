"""Several runs side by side: the value of each, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from m3index.errors import UsageError
from m3index.evaluate.measures import Scores
from m3index.evaluate.statistics import Estimate, PairedDifference, Test, difference, estimate, holm


@dataclass(frozen=True, slots=True)
class Comparison:
    """Run `b` against run `a` by one measure; p_holm is corrected for all comparisons of that measure."""

    measure: str
    a: str
    b: str
    difference: PairedDifference
    p_holm: float


@dataclass(frozen=True, slots=True)
class QueryDifference:
    """One query's values in two runs."""

    query_id: str
    a: float
    b: float

    @property
    def gain(self) -> float:
        return self.b - self.a


@dataclass(frozen=True, slots=True)
class Report:
    """estimates: by run, by measure. comparisons: every pair of runs by every measure."""

    queries: int
    estimates: Mapping[str, Mapping[str, Estimate]]
    comparisons: tuple[Comparison, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(next(iter(self.estimates.values())))


def report(runs: Mapping[str, Scores], *, test: Test = "randomisation") -> Report:
    """Runs by name, in display order. They must have the same queries and measures."""
    if not runs:
        raise UsageError("There is no run to report on.")
    first = next(iter(runs.values()))
    if any((s.query_ids, s.measures) != (first.query_ids, first.measures) for s in runs.values()):
        raise UsageError("Runs can be compared only on the same queries and by the same measures.")
    estimates = {
        name: {measure: estimate(scores.values[measure]) for measure in first.measures}
        for name, scores in runs.items()
    }
    comparisons: list[Comparison] = []
    for measure in first.measures:
        family = [
            Comparison(
                measure, a, b, difference(runs[a].values[measure], runs[b].values[measure], test=test), 1.0
            )
            for a, b in combinations(runs, 2)
        ]
        adjusted = holm([comparison.difference.p for comparison in family])
        comparisons += [replace(c, p_holm=p) for c, p in zip(family, adjusted, strict=True)]
    return Report(len(first.query_ids), estimates, tuple(comparisons))


def query_differences(a: Scores, b: Scores, measure: str) -> list[QueryDifference]:
    """Every query that differs, from b's greatest gain to its greatest loss; ties by query id."""
    rows = [
        QueryDifference(query_id, float(x), float(y))
        for query_id, x, y in zip(a.query_ids, a.values[measure], b.values[measure], strict=True)
        if x != y
    ]
    return sorted(rows, key=lambda row: (-row.gain, row.query_id))


def report_json(found: Report) -> dict[str, Any]:
    return {
        "type": "evaluation",
        "queries": found.queries,
        "runs": {
            name: {measure: asdict(value) for measure, value in values.items()}
            for name, values in found.estimates.items()
        },
        "comparisons": [
            {"measure": c.measure, "a": c.a, "b": c.b, **asdict(c.difference), "p_holm": c.p_holm}
            for c in found.comparisons
        ],
    }
