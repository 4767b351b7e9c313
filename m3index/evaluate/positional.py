"""Measures from the positions of the relevant documents alone, for thousands of settings at a time.

Each takes a query and (relevant, settings) positions and returns (settings,), as trec_eval would.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from m3index.errors import UsageError
from m3index.evaluate.held import HeldQuery, Positions
from m3index.evaluate.measures import Values
from m3index.search.options import RUN_HITS
from m3index.wording import many

PositionalMeasure: TypeAlias = Callable[[HeldQuery, Positions], Values]


def positional_measure(name: str) -> PositionalMeasure:
    """nDCG, R(ecall), (M)RR, (M)AP or Success, with or without a cut-off. UsageError for any other."""
    match = re.fullmatch(r"(\w+?)(?:@([1-9]\d*))?", name)
    measure = _MEASURES.get(match[1].lower()) if match else None
    if match is None or measure is None:
        raise UsageError(f"Tuning supports nDCG, Recall, MRR, AP or Success with a cut-off, not {name!r}.")
    return partial(measure, cut=float(match[2] or math.inf))


def with_cut(name: str, depth: int) -> str:
    """The name of the measure with its cut-off, by default that of evaluations. Raises UsageError for an
    unknown measure, and for a cut-off beyond the documents that are retrieved from each leg."""
    named = name if "@" in name else f"{name}@{RUN_HITS}"
    positional_measure(named)
    cut = int(named.partition("@")[2])
    if "@" in name and cut > depth:
        raise UsageError(
            f"{name} needs {many(cut, 'document')}, but depth is {depth:,}. Raise depth to at least {cut:,}."
        )
    return named


def _ndcg(query: HeldQuery, positions: Positions, cut: float) -> Values:
    gained = np.where(positions <= cut, query.gains[:, None] / np.log2(1 + positions), 0.0).sum(axis=0)
    ideal = query.ideal[: int(min(cut, len(query.ideal)))]
    values: Values = gained / (ideal / np.log2(2 + np.arange(len(ideal)))).sum()
    return values


def _recall(query: HeldQuery, positions: Positions, cut: float) -> Values:
    values: Values = (positions <= cut).sum(axis=0) / len(query.ideal)
    return values


def _reciprocal_rank(_: HeldQuery, positions: Positions, cut: float) -> Values:
    first = positions.min(axis=0, initial=math.inf)
    return np.where(first <= cut, 1 / first, 0.0)


def _average_precision(query: HeldQuery, positions: Positions, cut: float) -> Values:
    ascending = np.sort(positions, axis=0)
    precision = (1 + np.arange(len(positions)))[:, None] / ascending
    values: Values = np.where(ascending <= cut, precision, 0.0).sum(axis=0) / len(query.ideal)
    return values


def _success(_: HeldQuery, positions: Positions, cut: float) -> Values:
    values: Values = np.asarray((positions <= cut).any(axis=0), np.float64)
    return values


_MEASURES: Mapping[str, Callable[..., Values]] = {
    "ndcg": _ndcg,
    "r": _recall,
    "recall": _recall,
    "rr": _reciprocal_rank,
    "mrr": _reciprocal_rank,
    "ap": _average_precision,
    "map": _average_precision,
    "success": _success,
}
