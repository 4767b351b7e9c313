"""Puts the hits of a search in their final order: boosts, then a sort or diversity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from m3index.errors import UsageError
from m3index.search import boosts, sorting
from m3index.search.assemble import FusedHit, RowName, read_rows
from m3index.search.boosts import Values
from m3index.search.diversity import diversified
from m3index.search.options import DIVERSE_HITS, RankingOptions
from m3index.search.plan import PlannedLeg, SearchTarget
from m3index.store.base import StoredRow


class Arrangement:
    """The options of a search that order what the fusion, or the reranker, has ranked. Raises UsageError and
    FilterError for boosts that do not fit the fields of the collections."""

    def __init__(self, targets: Sequence[SearchTarget], options: RankingOptions) -> None:
        self._targets, self._diversity = targets, options.diversity
        self._boosts = [boost.bound(targets[0].spec.fields) for boost in options.boosts]
        self._order = options.sort_order
        if self._diversity and any(target.encoder is not targets[0].encoder for target in targets):
            raise UsageError(
                "diversity compares stored vectors, which these collections have from different encoders. "
                "Leave it out, or search the collections apart."
            )

    def __call__(
        self, found: Sequence[Sequence[FusedHit]], plan: Sequence[PlannedLeg]
    ) -> list[list[FusedHit]]:
        """The hits of each query in their final order. found: best first."""
        ordered = [self.by_values(hits) for hits in found]
        if not self._diversity:
            return ordered
        firsts = [hits[:DIVERSE_HITS] for hits in ordered]
        rows = read_rows([hit for first in firsts for hit in first], self._targets, plan, ["dense"])
        return [
            [*_diverse(first, rows, self._diversity), *hits[DIVERSE_HITS:]]
            for first, hits in zip(firsts, ordered, strict=True)
        ]

    def by_values(self, hits: Sequence[FusedHit]) -> list[FusedHit]:
        """The hits boosted and sorted, which needs no more than the values of their fields."""
        ordered = list(hits)
        if self._boosts:
            ordered = [self._boosted(hit) for hit in hits]
            ordered.sort(key=lambda hit: (-hit.score, hit.fused.id))
        if (order := self._order) is not None:
            return sorting.sort(ordered, lambda hit: hit.values[order.field], descending=order.descending)
        return ordered

    def factors(self, values: Values) -> tuple[float, ...]:
        """The factor of each boost for these values of fields, in the order of the option."""
        return tuple(boost.factor(values) for boost in self._boosts)

    def _boosted(self, hit: FusedHit) -> FusedHit:
        factors = self.factors(hit.values)
        return replace(hit, factors=factors, boosted_score=boosts.boosted(hit.score, factors))


def factors_of_fusion(hits: Sequence[FusedHit], options: RankingOptions) -> dict[str, float]:
    """What the fused score of each id is multiplied by. With a reranker, that is nothing: its scores are."""
    if options.rerank is not None or not options.boosts:
        return {}
    return {hit.fused.id: math.prod(hit.factors) for hit in hits}


def _diverse(hits: Sequence[FusedHit], rows: Mapping[RowName, StoredRow], diversity: float) -> list[FusedHit]:
    """The hits by maximal marginal relevance. One that has been removed is like none."""
    if not any(hit.row in rows for hit in hits):
        return list(hits)
    vectors = {hit.row: rows[hit.row]["dense"] for hit in hits if hit.row in rows}
    removed = np.zeros_like(next(iter(vectors.values())))
    matrix = np.stack([vectors.get(hit.row, removed) for hit in hits])
    return [hits[i] for i in diversified([hit.score for hit in hits], matrix, diversity)]
