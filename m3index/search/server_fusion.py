"""Fusion by Milvus's own ranker, used if it gives the same result as the fusion of m3index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from m3index.search.assemble import FusedHit
from m3index.search.fusion import Fused
from m3index.search.options import SearchOptions
from m3index.search.plan import PlannedLeg
from m3index.store.base import MAX_LIMIT, QueryVector
from m3index.store.filter import Filter
from m3index.types import Candidate, Leg


@runtime_checkable
class FusingStore(Protocol):
    """An optional extension of `Store`: reciprocal rank fusion on the server."""

    def weighs_legs(self, name: str) -> bool:
        """Whether the fusion applies weights. Tested once, because a server that ignores them reports no
        error."""
        ...

    def hybrid(
        self,
        name: str,
        queries: Mapping[Leg, Sequence[QueryVector]],
        weights: Mapping[Leg, float] | None,
        *,
        depth: int,
        limit: int,
        k: float,
        where: Filter | None = None,
    ) -> list[list[Candidate]]:
        """The best `limit` passages of each query by the sum over legs of weight / (k + rank), each leg
        cut at `depth`; by score descending, then passage_id ascending. weights: from 0 to 1; None: all 1.
        A query without lexical tokens is answered by the other leg. Raises StoreError."""
        ...


def obstacle(plan: Sequence[PlannedLeg], options: SearchOptions, *, has_conditions: bool) -> str | None:
    """Why Milvus cannot give the same result, or None if it can. has_conditions: whether a query has phrases
    or exclusions."""
    first = plan[0]
    if has_conditions:
        return "m3index looks for phrases and exclusions in what each leg finds"
    if options.facets_found:
        return "the facets are counted over what each leg finds, which Milvus does not return"
    if not options.passages:
        return "the ranker of Milvus fuses passages, not documents (use the option passages)"
    if options.explain:
        return "Milvus does not return the ranks of the legs, which an explanation needs"
    if options.boosts:
        return "Milvus ignores boosts in a search of two legs"
    if options.sort is not None:
        return "Milvus does not sort what it has fused"
    if len(plan) != 2 or plan[1].target is not first.target:
        return "the search does not have two legs in one collection"
    if not 0 < options.rank_constant < MAX_LIMIT:
        return f"the k of Milvus must be above 0 and below {MAX_LIMIT:,}"
    store = first.target.store
    if not isinstance(store, FusingStore):
        return "this store has no ranker"
    if first.weight != plan[1].weight and not store.weighs_legs(first.target.collection):
        return "this server ignores the weights of the legs"
    return None


def fuse_on_server(
    vectors: Mapping[str, Sequence[QueryVector]],
    plan: Sequence[PlannedLeg],
    options: SearchOptions,
) -> list[list[FusedHit]]:
    """The first passages of each query. Call only if `obstacle` returns None."""
    target, count = plan[0].target, options.fused_count
    assert count is not None
    assert isinstance(target.store, FusingStore)
    heaviest = max(leg.weight for leg in plan)
    equal = all(leg.weight == heaviest for leg in plan)
    answers = target.store.hybrid(
        target.collection,
        {leg.leg: vectors[leg.name] for leg in plan},
        None if equal else {leg.leg: leg.weight / heaviest for leg in plan},
        depth=options.leg_depth,
        limit=count,
        k=options.rank_constant,
        where=plan[0].where,
    )
    return [
        [
            FusedHit(rank, Fused(c.passage_id, c.score * heaviest, {}), plan[0].name, c.passage_id)
            for rank, c in enumerate(answer, 1)
        ]
        for answer in answers
    ]
