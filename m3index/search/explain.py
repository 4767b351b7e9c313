"""Explains the rank of a hit, and gives its rank at other weights, from the legs of a result alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from m3index.search.fusion import RRF_K, Fused, Method, Ranking, contributions
from m3index.search.result import Crossing, Explanation, Match, RankRange
from m3index.types import SparseVector

NO_FACTORS: Mapping[str, float] = MappingProxyType({})


class Weighing:
    """Two legs fused at all shares: score(share) = (1 - share) a + share b.

    a and b are the contributions of the legs at weight 1, so two ids swap places at most once: at
    share = da / (da - db), where da and db are the differences of their a and of their b. factors: of the
    boosts, by id; the factor of any other id is 1. They multiply both contributions.
    """

    def __init__(
        self,
        first: Ranking,
        second: Ranking,
        *,
        method: Method = "rrf",
        k: float = RRF_K,
        factors: Mapping[str, float] = NO_FACTORS,
    ) -> None:
        self.ids = sorted({*first.ids, *second.ids})
        self._number = {id_: i for i, id_ in enumerate(self.ids)}
        self._factors: NDArray[np.float64] = np.array([factors.get(id_, 1.0) for id_ in self.ids])
        legs = {"first": first, "second": second}
        values = contributions(legs, dict.fromkeys(legs, 1.0), method, k)
        self._a = self._values(first, values["first"])
        self._b = self._values(second, values["second"])
        alone = contributions({"first": first}, {"first": 1.0}, method, k)
        self._a_alone = self._values(first, alone["first"])

    def _values(self, ranking: Ranking, contributed: Sequence[float]) -> NDArray[np.float64]:
        values = np.zeros(len(self.ids))
        values[[self._number[id_] for id_ in ranking.ids]] = contributed
        values *= self._factors
        return values

    def crossing(self, id_: str, other: str) -> tuple[float, bool] | None:
        """(share, whether `id_` is before `other` above it); None if they never swap places."""
        i, j = self._number[id_], self._number[other]
        da, db = float(self._a[i] - self._a[j]), float(self._b[i] - self._b[j])
        if da * db >= 0:
            return None
        return da / (da - db), db > da

    def ranks(self, id_: str) -> list[RankRange]:
        """The rank of `id_` for every share, as ranges of equal rank. At a boundary the two ids have
        equal scores, and the smaller id comes first.

        At the share 0, the second leg does not run. With fusion by evidence, that can be another ranking
        than at the smallest share above 0, because the dense votes depend on what the sparse leg has found;
        then the first range has no width.
        """
        i = self._number[id_]
        da, db = self._a[i] - self._a, self._b[i] - self._b
        earlier_id = np.arange(len(self.ids)) < i
        behind = (da < 0) | ((da == 0) & ((db < 0) | ((db == 0) & earlier_id)))
        rank = 1 + int(behind.sum())
        crosses = np.flatnonzero(da * db < 0)
        shares = da[crosses] / (da[crosses] - db[crosses])
        steps = np.where(db[crosses] > da[crosses], -1, 1)
        ranges: list[RankRange] = []
        if not np.array_equal(self._a, self._a_alone):
            above = (self._a_alone > self._a_alone[i]) | ((self._a_alone == self._a_alone[i]) & earlier_id)
            if (alone := 1 + int(above.sum())) != rank:
                ranges.append(RankRange(0.0, 0.0, alone))
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
    first_rank: int = 1,
    factors: Mapping[str, float] = NO_FACTORS,
) -> list[Explanation]:
    """One explanation per hit, in order. fused: the hits as they were fused. first_rank: of the first hit.
    factors: what boosts multiply the fused score of each id by."""
    if len(rankings) != 2:
        return [Explanation(matches=tuple(of_hit)) for of_hit in matches]
    first, second = rankings
    share = weights[second] / (weights[first] + weights[second])
    weighing = Weighing(rankings[first], rankings[second], method=method, k=k, factors=factors)
    explanations: list[Explanation] = []
    for number, (hit, of_hit) in enumerate(zip(fused, matches, strict=True), first_rank):
        crossings = [
            Crossing(other, *crossing)
            for other, neighbour in enumerate(fused, first_rank)
            if other != number and (crossing := weighing.crossing(hit.id, neighbour.id)) is not None
        ]
        crossings.sort(key=lambda crossing: (abs(crossing.share - share), crossing.other))
        explanations.append(
            Explanation(
                matches=tuple(of_hit),
                leg=second,
                share=share,
                crossings=tuple(crossings),
                ranks=tuple(weighing.ranks(hit.id)),
            )
        )
    return explanations


def lexical_matches(query: SparseVector, passage: SparseVector, texts: Mapping[int, str]) -> list[Match]:
    """The tokens that query and passage share, by their part of the score, then by token id.

    texts: the texts of the tokens by id; it may contain other tokens.
    """
    ids, i, j = np.intersect1d(query.indices, passage.indices, assume_unique=True, return_indices=True)
    matches = [
        (int(id_), Match(texts[int(id_)], float(q), float(p)))
        for id_, q, p in zip(ids, query.values[i], passage.values[j], strict=True)
    ]
    matches.sort(key=lambda item: (-(item[1].score or 0.0), item[0]))
    return [match for _, match in matches]
