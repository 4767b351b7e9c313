"""Fuses the rankings of several legs into one. Pure functions; the order of the legs has no effect."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from m3index.errors import UsageError
from m3index.search.evidence import LEAST_HITS, Chance, chance
from m3index.types import MOST_TRUST, FieldValue, Leg

Method: TypeAlias = Literal["rrf", "evidence", "minmax", "dbsf", "arctan"]
METHODS: tuple[Method, ...] = get_args(Method)

RRF_K = 60.0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The result of one leg for one query, best first.

    ids: what is fused, without duplicates: document keys, passage keys or groups. scores: those of the
    leg, descending; higher is better. passages: the primary key of each id's best passage. depth: how many
    ids the leg was asked for. trust: what fusion by evidence multiplies the votes of the leg by. values: the
    declared fields that the search needs of each id.
    """

    ids: Sequence[str] = ()
    scores: Sequence[float] = ()
    passages: Sequence[str] = ()
    leg: Leg = Leg.DENSE
    depth: int = 0
    trust: float = 1.0
    values: Mapping[str, Mapping[str, FieldValue]] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unseen(self) -> float:
        """How often a dense vote counts for an id that no sparse leg has found: once at a trust of up to 1,
        twice at the greatest trust."""
        return 1.0 + (min(max(self.trust, 1.0), MOST_TRUST) - 1.0) / (MOST_TRUST - 1.0)

    @property
    def chance(self) -> Chance | None:
        """What chance explains of the scores; None if they do not show it."""
        if self.leg is Leg.DENSE and len(self) < LEAST_HITS:
            return None
        return chance(self.scores, None if self.leg is Leg.DENSE else self.depth)


@dataclass(frozen=True, slots=True)
class Fused:
    """An id with its fused score, the sum of the contributions of the legs that found it."""

    id: str
    score: float
    contributions: Mapping[str, float]


def fuse(
    rankings: Mapping[str, Ranking],
    weights: Mapping[str, float],
    *,
    method: Method = "rrf",
    k: float = RRF_K,
) -> list[Fused]:
    """score(id) = sum of weight x value over the legs that found it; by score descending, then id.

    The value is 1 / (k + rank) for `rrf`, the vote for `evidence`, else the leg's score scaled to [0, 1]. A
    leg that did not find the id adds nothing, and a leg of weight 0 is ignored. Every ranking needs a weight.
    The sum is exact and rounded once (`math.fsum`), so the order of the legs cannot change it.
    """
    active = {leg: ranking for leg, ranking in rankings.items() if weights[leg] > 0}
    parts: dict[str, dict[str, float]] = {}
    for leg, values in contributions(active, weights, method, k).items():
        for id_, value in zip(active[leg].ids, values, strict=True):
            parts.setdefault(id_, {})[leg] = value
    fused = [Fused(id_, math.fsum(part.values()), part) for id_, part in parts.items()]
    fused.sort(key=lambda f: (-f.score, f.id))
    return fused


def combine(
    rankings: Mapping[str, Ranking],
    weights: Mapping[str, float],
    *,
    method: Method = "rrf",
    k: float = RRF_K,
) -> list[Fused]:
    """Like `fuse`, but the ids of a single leg keep its own scores."""
    active = [leg for leg in rankings if weights[leg] > 0]
    if len(active) != 1:
        return fuse(rankings, weights, method=method, k=k)
    leg, ranking = active[0], rankings[active[0]]
    return [Fused(id_, score, {leg: score}) for id_, score in zip(ranking.ids, ranking.scores, strict=True)]


def contributions(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float], method: Method, k: float = RRF_K
) -> dict[str, list[float]]:
    """What each leg adds to the fused score of each of its ids, in order: proportional to its weight."""
    if chances := chances_of(rankings, method):
        votes = evidence(rankings, chances)
        return {leg: [weights[leg] * vote for vote in votes.get(leg, ())] for leg in rankings}
    return {leg: _scaled(ranking, weights[leg], method, k) for leg, ranking in rankings.items()}


def _scaled(ranking: Ranking, weight: float, method: Method, k: float) -> list[float]:
    match method:
        case "minmax":
            values = min_max(ranking.scores)
        case "dbsf":
            values = distribution(ranking.scores)
        case "arctan":
            values = arctan(ranking.scores, ranking.leg)
        case _:
            return reciprocal_ranks(len(ranking), weight, k)
    return [weight * value for value in values]


def chances_of(rankings: Mapping[str, Ranking], method: Method = "evidence") -> dict[str, Chance]:
    """What chance explains in each leg that found something; empty with another method, or if the scores of
    one leg do not show it: then ranks are fused."""
    chances: dict[str, Chance] = {}
    if method != "evidence":
        return chances
    for leg, ranking in rankings.items():
        if len(ranking):
            found = ranking.chance
            if found is None:
                return {}
            chances[leg] = found
    return chances


def evidence(rankings: Mapping[str, Ranking], chances: Mapping[str, Chance]) -> dict[str, list[float]]:
    """The votes of each leg for each of its ids, at weight 1: trust x `Chance.vote`.

    An id that no sparse leg has found shares no word with the query, perhaps because it is in another
    language. The sparse legs say nothing of it, and the vote of a dense leg that knows the collection well
    counts in their place too (`Ranking.unseen`). So it does for an id that a sparse leg of little trust has
    found, as far as that trust is missing: at a trust of 0, the ranking is that of the dense leg.
    """
    seen: dict[str, float] = {}
    for ranking in rankings.values():
        if ranking.leg is not Leg.DENSE:
            seen |= {id_: max(ranking.trust, seen.get(id_, 0.0)) for id_ in ranking.ids}
    votes: dict[str, list[float]] = {}
    for leg, by_chance in chances.items():
        ranking = rankings[leg]
        votes[leg] = [ranking.trust * by_chance.vote(score) for score in ranking.scores]
        if ranking.leg is Leg.DENSE:
            votes[leg] = [
                (ranking.unseen - (ranking.unseen - 1) * seen.get(id_, 0.0)) * vote
                for id_, vote in zip(ranking.ids, votes[leg], strict=True)
            ]
    return votes


def reciprocal_ranks(n: int, weight: float = 1.0, k: float = RRF_K) -> list[float]:
    """weight / (k + rank) for ranks 1 .. n.

    Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009, with k = 60; the weights are the usual generalisation. A single
    division is rounded once, so equal fractions are equal floats.
    """
    return [weight / (k + rank) for rank in range(1, n + 1)]


def min_max(scores: Sequence[float]) -> list[float]:
    """(score - minimum) / (maximum - minimum); 1 if all are equal.

    Fox and Shaw, "Combination of Multiple Searches", TREC-2, 1994, after Lee, SIGIR 1997.
    """
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if not high > low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]


def distribution(scores: Sequence[float]) -> list[float]:
    """(score - (mean - 3 sd)) / (6 sd), clipped to [0, 1]; 0.5 if all are equal.

    Distribution-based score fusion: Mazzeschi 2023, as in Qdrant and LlamaIndex. sd is
    that of the population. Clipping ensures that being found never lowers a score.
    """
    if not scores:
        return []
    mean = math.fsum(scores) / len(scores)
    sd = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    if not sd > 1e-9 * max(1.0, abs(mean)):
        return [0.5] * len(scores)
    return [min(1.0, max(0.0, (score - (mean - 3 * sd)) / (6 * sd))) for score in scores]


def arctan(scores: Sequence[float], leg: Leg) -> list[float]:
    """Milvus's normalisation for its WeightedRanker (`norm_score`): 1/2 + atan(score) / pi for inner
    products, 2 atan(score) / pi for BM25. It does not depend on other scores of the ranking."""
    if leg is Leg.BM25:
        return [2 * math.atan(score) / math.pi for score in scores]
    return [0.5 + math.atan(score) / math.pi for score in scores]


def check_weights(weights: Mapping[str, float], legs: Collection[str]) -> None:
    """Raises UsageError unless each leg has a weight that is finite and >= 0, and at least one is above 0."""
    names = ", ".join(sorted(legs))
    for name, weight in weights.items():
        if name not in legs:
            raise UsageError(f"There is no leg {name!r} to weight. The legs are {names}.")
        if not (math.isfinite(weight) and weight >= 0):
            raise UsageError(f"The weight of {name} must be a number from 0 up, not {weight}.")
    missing = sorted(set(legs) - set(weights))
    if missing:
        raise UsageError(f"There is no weight for {', '.join(missing)}. Give one for each of {names}.")
    if not any(weights[leg] > 0 for leg in legs):
        raise UsageError("All weights are 0. Give at least one leg a weight above 0.")
