"""Quality gates: `nDCG@10>=old-0.005`. What lets a new generation in, or a build fail."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from m3index.errors import UsageError

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {">=": operator.ge, ">": operator.gt}
_NUMBER = r"\d+(?:\.\d+)?"
_GATE = re.compile(
    rf"""\s*(?P<measure>[^<>\s]+?)\s*(?P<op>>=|>)\s*
    (?:(?P<old>old)\s*(?:(?P<sign>[-+*])\s*(?P<by>{_NUMBER}))?|(?P<value>{_NUMBER}))\s*""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Gate:
    """measure op (old x factor + offset), or measure op offset where `relative` is False."""

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
                f"{text!r} is no gate; write it like nDCG@10>=old-0.005, nDCG@10>=old*0.98 or nDCG@10>=0.65."
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
        """Whether the new value passes, and a sentence that says by how much. A value that is not a
        number never passes. Raises UsageError where the gate needs an old value and there is none."""
        if self.relative and old is None:
            raise UsageError(f"The gate {self.text} compares with an old value, and there is none.")
        bound = round((old or 0.0) * self.factor + self.offset if self.relative else self.offset, 12)
        passed = math.isfinite(new) and _OPERATORS[self.op](round(new, 12), bound)
        was = f" (old {old:.4f})" if self.relative else ""
        asks = f"the gate {self.text} asks for {self.op} {bound:.4f}"
        return passed, f"{self.measure} is {new:.4f}{was}: {asks} and {'passes' if passed else 'fails'}."
