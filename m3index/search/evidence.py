"""How surprising a hit is in its own ranking: the votes of fusion by evidence. Pure functions.

A leg returns the best of many documents. Most of them are there by chance, and the scores of such documents
fall off exponentially at the top: the order statistics of an exponential tail (Renyi, 1953), on which the
E-value of sequence search rests too (Karlin and Altschul, 1990). The lower part of the list shows how fast
they fall off. From that follows how many documents would score as high as a hit by chance: for the hit of
rank i of a leg that knows nothing, about i; for a hit that stands out, a small fraction of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_HITS = 10
"""The number of dense hits from which the scores of a list tell chance from evidence."""

HEAD = 5
"""The best 1/HEAD of a list does not enter the estimate of chance: the relevant documents are there."""

DEPTH = 100
"""How many of the best scores enter the estimate of chance, however deep the leg was searched: further down,
and in collections that are hardly larger, scores do not fall off exponentially any more."""

_LARGEST = 700.0
"""The largest exponent of a floating-point number."""

_RESOLUTION = 1e-6
"""Relative to the scores, a scale below this is rounding: they are equal."""


@dataclass(frozen=True, slots=True)
class Chance:
    """How many documents score above s by chance: count x exp(-(s / unit - floor) / scale).

    unit: the largest absolute score, so that no floating-point number is too large or too small.
    """

    count: int
    unit: float
    floor: float
    scale: float

    def surprise(self, score: float) -> float:
        """The negative logarithm of the number of documents that score as high by chance."""
        return (score / self.unit - self.floor) / self.scale - math.log(self.count)

    def expected(self, score: float) -> float:
        """The number of documents that score as high by chance."""
        return math.exp(min(-self.surprise(score), _LARGEST))

    def vote(self, score: float) -> float:
        """ln(1 + ln(1 + 1 / expected)): near 0 for what chance explains. Twice the logarithm, so that no leg
        outvotes another one by a single high score."""
        surprise = self.surprise(score)
        return math.log1p(max(surprise, 0.0) + math.log1p(math.exp(-abs(surprise))))


def chance(scores: Sequence[float], zero_at: int | None = None) -> Chance | None:
    """The chance that the lower part of a list shows; None if it shows none, as equal scores.

    scores: descending. zero_at: for a leg that finds only what shares a word with the query, its depth: below
    a list that is shorter, every document has the score 0. The scale is the ratio of two sums, because the
    expected excess of rank i of n over the last score is scale x ln(n / i).
    """
    scores = scores[:DEPTH]
    size = len(scores)
    unit = max(abs(scores[0]), abs(scores[-1])) if size else 0.0
    if not unit > 0:
        return None
    count, floor = size, scores[-1] / unit
    if zero_at is not None and size < min(zero_at, DEPTH):
        count, floor = min(zero_at, DEPTH), 0.0
    first = size // HEAD
    excess = math.fsum(score / unit - floor for score in scores[first:])
    logs = math.fsum(math.log(count / rank) for rank in range(first + 1, size + 1))
    if not excess > _RESOLUTION * logs:
        return None
    return Chance(count, unit, floor, excess / logs)
