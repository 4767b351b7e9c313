"""Why a hit is where it is, and where it would be at other weights. All from the legs that are held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3index.search.fusion import RRF_K, Fused, Method, Ranking, contributions
from m3index.types import SparseVector


@dataclass(frozen=True, slots=True)
class Match:
    """A token of query and passage. The weights are those of the lexical vectors; their product is
    what the token adds to the lexical score. BM25's weights are known to the server alone: None."""

    token: str
    query_weight: float | None = None
    passage_weight: float | None = None

    @property
    def score(self) -> float | None:
        if self.query_weight is None or self.passage_weight is None:
            return None
        return self.query_weight * self.passage_weight


@dataclass(frozen=True, slots=True)
class Crossing:
    """The share of the second leg's weight, in (0, 1), at which two hits change places.

    Above `share` the hit is before `other` if `overtakes`, else behind it. `other` counts hits from 1.
    """

    other: int
    share: float
    overtakes: bool


@dataclass(frozen=True, slots=True)
class RankRange:
    """The fused rank of a hit while the second leg's share of the weight is between start and end."""

    start: float
    end: float
    rank: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """matches: strongest first. crossings: with the other hits, nearest to the present share first.
    ranks: over all shares from 0 to 1. The latter two are empty unless exactly two legs were fused;
    `share` is then the present share of the second leg, whose name is `leg`."""

    matches: tuple[Match, ...] = ()
    leg: str | None = None
    share: float | None = None
    crossings: tuple[Crossing, ...] = ()
    ranks: tuple[RankRange, ...] = ()


class Weighing:
    """Two legs fused at every share at once: score(share) = (1 - share) a + share b.

    a and b are what the legs contribute at weight 1, so a pair of ids changes order at most once:
    at share = da / (da - db), where da and db are the differences of their a and of their b.
    """

    def __init__(self, first: Ranking, second: Ranking, *, method: Method = "rrf", k: float = RRF_K) -> None:
        self.ids = sorted({*first.ids, *second.ids})
        self._number = {id_: i for i, id_ in enumerate(self.ids)}
        self._a = self._values(first, method, k)
        self._b = self._values(second, method, k)

    def _values(self, ranking: Ranking, method: Method, k: float) -> NDArray[np.float64]:
        values = np.zeros(len(self.ids))
        values[[self._number[id_] for id_ in ranking.ids]] = contributions(ranking, 1.0, method, k)
        return values

    def crossing(self, id_: str, other: str) -> tuple[float, bool] | None:
        """(share, whether `id_` is before `other` above it); None where they never change places."""
        i, j = self._number[id_], self._number[other]
        da, db = float(self._a[i] - self._a[j]), float(self._b[i] - self._b[j])
        if da * db >= 0:
            return None
        return da / (da - db), db > da

    def ranks(self, id_: str) -> list[RankRange]:
        """The rank of `id_` for every share, in stretches of equal rank. On a boundary itself the
        two that change places are level, and the lesser id is before the other."""
        i = self._number[id_]
        da, db = self._a[i] - self._a, self._b[i] - self._b
        earlier_id = np.arange(len(self.ids)) < i
        behind = (da < 0) | ((da == 0) & ((db < 0) | ((db == 0) & earlier_id)))
        rank = 1 + int(behind.sum())
        crosses = np.flatnonzero(da * db < 0)
        shares = da[crosses] / (da[crosses] - db[crosses])
        steps = np.where(db[crosses] > da[crosses], -1, 1)
        ranges: list[RankRange] = []
        start = 0.0
        for share in np.unique(shares):
            step = int(steps[shares == share].sum())
            if step:
                ranges.append(RankRange(start, float(share), rank))
                start, rank = float(share), rank + step
        return [*ranges, RankRange(start, 1.0, rank)]


def explain(
    fused: Sequence[Fused],
    rankings: Mapping[str, Ranking],
    weights: Mapping[str, float],
    matches: Sequence[Sequence[Match]],
    *,
    method: Method = "rrf",
    k: float = RRF_K,
) -> list[Explanation]:
    """One explanation for each of the hits, given as fused, in their order."""
    if len(rankings) != 2:
        return [Explanation(matches=tuple(found)) for found in matches]
    first, second = rankings
    share = weights[second] / (weights[first] + weights[second])
    weighing = Weighing(rankings[first], rankings[second], method=method, k=k)
    explanations: list[Explanation] = []
    for number, (hit, found) in enumerate(zip(fused, matches, strict=True), 1):
        crossings = [
            Crossing(other, *crossing)
            for other, neighbour in enumerate(fused, 1)
            if other != number and (crossing := weighing.crossing(hit.id, neighbour.id)) is not None
        ]
        crossings.sort(key=lambda crossing: (abs(crossing.share - share), crossing.other))
        explanations.append(
            Explanation(
                matches=tuple(found),
                leg=second,
                share=share,
                crossings=tuple(crossings),
                ranks=tuple(weighing.ranks(hit.id)),
            )
        )
    return explanations


def lexical_matches(query: SparseVector, passage: SparseVector, texts: Mapping[int, str]) -> list[Match]:
    """The tokens that both have, by what they add to the score, then by token id.

    texts: the tokens' texts by id; it may hold more than those that match.
    """
    ids, i, j = np.intersect1d(query.indices, passage.indices, assume_unique=True, return_indices=True)
    found = [
        (int(id_), Match(texts[int(id_)], float(q), float(p)))
        for id_, q, p in zip(ids, query.values[i], passage.values[j], strict=True)
    ]
    found.sort(key=lambda item: (-(item[1].score or 0.0), item[0]))
    return [match for _, match in found]
