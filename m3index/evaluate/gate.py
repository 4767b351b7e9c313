"""Quality gates such as `nDCG@10>=old-0.005`, which accept a new generation or make a build fail."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from m3index.errors import UsageError
from m3index.evaluate.coverage import Coverage, cover
from m3index.evaluate.formats import Qrels
from m3index.search.options import RUN_HITS
from m3index.types import Query

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {">=": operator.ge, ">": operator.gt}
_NUMBER = r"\d+(?:\.\d+)?"
_GATE = re.compile(
    rf"""\s*(?P<measure>[^<>\s]+?)\s*(?P<op>>=|>)\s*
    (?:(?P<old>old)\s*(?:(?P<sign>[-+*])\s*(?P<by>{_NUMBER}))?|(?P<value>{_NUMBER}))\s*""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Gate:
    """measure op (old x factor + offset), or measure op offset if `relative` is False."""

    text: str
    measure: str
    op: str
    relative: bool
    factor: float
    offset: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """`MEASURE>=old-0.005`, `MEASURE>=old*0.98`, `MEASURE>=0.65`, or with `>`. Raises UsageError."""
        match = _GATE.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is not a gate; "
                "write it like nDCG@10>=old-0.005, nDCG@10>=old*0.98 or nDCG@10>=0.65."
            )
        by = float(match["by"] or 0)
        return cls(
            text=text.strip(),
            measure=match["measure"],
            op=match["op"],
            relative=match["old"] is not None,
            factor=by if match["sign"] == "*" else 1.0,
            offset=float(match["value"]) if match["value"] else {"-": -by, "+": by}.get(match["sign"], 0.0),
        )

    def check(self, new: float, old: float | None = None) -> tuple[bool, str]:
        """Whether the new value passes, and a sentence with the values. A value that is not a number never
        passes. Raises UsageError if the gate needs an old value and there is none."""
        if self.relative and old is None:
            raise UsageError(f"The gate {self.text} compares with an old value, but there is none.")
        bound = round((old or 0.0) * self.factor + self.offset if self.relative else self.offset, 12)
        passed = math.isfinite(new) and _OPERATORS[self.op](round(new, 12), bound)
        previous = f" (old {old:.4f})" if self.relative else ""
        rule = f"the gate {self.text} requires {self.op} {bound:.4f}"
        return passed, f"{self.measure} is {new:.4f}{previous}: {rule} and {'passes' if passed else 'fails'}."


@dataclass(frozen=True, slots=True)
class QualityGate:
    """What a new generation must reach on judged queries before it serves.

    queries: those that are asked of both generations. hits: the number of hits for each of them.
    """

    gate: Gate
    queries: Sequence[Query]
    qrels: Qrels
    coverage: Coverage
    hits: int

    @classmethod
    def over(cls, text: str, queries: Sequence[Query], qrels: Qrels, name: str = "the queries") -> Self:
        """The gate on those of the queries that have judgements. name: where the queries are from. Raises
        UsageError for a text that is no gate, an unknown measure, and queries without judgements."""
        from m3index.evaluate.measures import at_most, hits_needed  # numpy, which `--help` does not load

        gate = Gate.parse(text)
        hits = hits_needed(gate.measure, RUN_HITS)
        [measure] = at_most([gate.measure], hits)
        coverage = cover([query.query_id for query in queries], qrels, name)
        return cls(replace(gate, measure=measure), coverage.select(queries), qrels, coverage, hits)
