"""Fusion by Milvus's own ranker, where it gives the answer that ours would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from m3index.search.assemble import Found
from m3index.search.fusion import Fused
from m3index.search.options import SearchOptions
from m3index.search.plan import PlannedLeg
from m3index.store.base import QueryVector
from m3index.store.filter import Filter
from m3index.store.queries import MAX_LIMIT
from m3index.types import Candidate, Leg


@runtime_checkable
class FusingStore(Protocol):
    """What a store may offer beyond `Store`: reciprocal rank fusion in the server."""

    def weighs_legs(self, name: str) -> bool:
        """Whether its fusion honours weights: by trying, once, since servers that do not say nothing."""
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
        """For each query its best `limit` passages: sum over legs of weight / (k + rank), each leg cut
        at `depth`; by score descending, then passage_id ascending. weights: from 0 to 1; None is 1.
        A query without lexical tokens is answered by the other leg."""
        ...


def why_not(plan: Sequence[PlannedLeg], options: SearchOptions) -> str | None:
    """What makes Milvus's answer another than ours, or None where it is the same."""
    first = plan[0]
    if not options.passages:
        return "its ranker fuses passages, not documents; search with --passages"
    if options.explain:
        return "it does not give the ranks of the legs, which an explanation needs"
    if len(plan) != 2 or plan[1].target is not first.target:
        return "there is nothing to fuse in one collection"
    if not 0 < options.rrf_k < MAX_LIMIT:
        return f"its k is above 0 and below {MAX_LIMIT:,}"
    store = first.target.store
    if not isinstance(store, FusingStore):
        return "this store has no ranker of its own"
    if first.weight != plan[1].weight and not store.weighs_legs(first.target.collection):
        return "this server ignores the weights of the legs"
    return None


def fuse_on_server(
    vectors: Mapping[str, Sequence[QueryVector]],
    plan: Sequence[PlannedLeg],
    options: SearchOptions,
    count: int,
) -> list[list[Found]]:
    """The first `count` passages for each query. Only where `why_not` has nothing to say."""
    target = plan[0].target
    assert isinstance(target.store, FusingStore)
    heaviest = max(leg.weight for leg in plan)
    equal = all(leg.weight == heaviest for leg in plan)
    answers = target.store.hybrid(
        target.collection,
        {leg.leg: vectors[leg.name] for leg in plan},
        None if equal else {leg.leg: leg.weight / heaviest for leg in plan},
        depth=options.leg_depth,
        limit=count,
        k=options.rrf_k,
        where=options.where,
    )
    return [
        [
            Found(rank, Fused(c.passage_id, c.score * heaviest, {}), plan[0].name, c.passage_id)
            for rank, c in enumerate(answer, 1)
        ]
        for answer in answers
    ]
