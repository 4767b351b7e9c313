from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from search.corpus import TIDES, collection

from m3index.search.options import SearchOptions
from m3index.search.searcher import Searcher, SearchResult
from m3index.search.server_fusion import FusingStore
from m3index.store.filter import Compare, Filter
from m3index.store.memory import MemoryStore
from m3index.types import Candidate, Leg, Query


class FusingMemory(MemoryStore):
    """A store with a ranker of its own, written anew; it may ignore weights, as old servers do."""

    def __init__(self, honest: bool = True) -> None:
        super().__init__()
        self.honest = honest
        self.asked: list[Mapping[Leg, float] | None] = []

    def weighs_legs(self, name: str) -> bool:
        return self.honest

    def hybrid(
        self,
        name: str,
        queries: Mapping[Leg, Sequence[Any]],
        weights: Mapping[Leg, float] | None,
        *,
        depth: int,
        limit: int,
        k: float,
        where: Filter | None = None,
    ) -> list[list[Candidate]]:
        self.asked.append(weights)
        totals: list[dict[str, float]] = []
        for leg, vectors in queries.items():
            for i, found in enumerate(self.search(name, leg, vectors, depth, where)):
                totals += [{}] * (i >= len(totals))
                totals[i] = dict(totals[i])
                for rank, c in enumerate(found, 1):
                    weight = weights[leg] if weights is not None and self.honest else 1.0
                    totals[i][c.passage_id] = totals[i].get(c.passage_id, 0.0) + weight / (k + rank)
        return [
            [Candidate(p, s) for p, s in sorted(total.items(), key=lambda item: (-item[1], item[0]))][:limit]
            for total in totals
        ]


def shown(result: SearchResult) -> list[tuple[str, float, str]]:
    return [(hit.passage_id, pytest.approx(hit.score), hit.text) for hit in result.hits]


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
@pytest.mark.parametrize("weights", [None, {"dense": 0.3, "sparse": 0.3}, {"dense": 2.0, "sparse": 1.0}])
@pytest.mark.parametrize("where", [None, Compare("doc_id", "!=", "sea")])
def test_the_server_gives_our_answer(sparse: Any, weights: Any, where: Any) -> None:
    store = FusingMemory()
    assert isinstance(store, FusingStore)
    searcher = Searcher(collection(TIDES, sparse, store=store))
    options = SearchOptions(k=4, passages=True, weights=weights, where=where, rrf_k=20, depth=6)
    ours = searcher.search("salt water in the sea", options)
    theirs = searcher.search("salt water in the sea", replace(options, fusion="server"))
    assert shown(theirs) == shown(ours)
    assert theirs.notes == ("Fused by Milvus.",)
    assert len(store.asked) == 1
    assert set(theirs.timings) == {"encode", "server", "fetch", "total"}
    assert (theirs.legs, theirs.hits[0].legs) == ({}, {})


def test_weights_are_sent_between_0_and_1() -> None:
    store = FusingMemory()
    options = SearchOptions(passages=True, fusion="server", weights={"dense": 1.0, "sparse": 4.0})
    Searcher(collection(TIDES, store=store)).search("sea", options)
    assert store.asked == [{Leg.DENSE: 0.25, Leg.LEXICAL: 1.0}]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"passages": False}, "fuses passages, not documents; search with --passages"),
        ({"explain": True}, "does not give the ranks of the legs"),
        ({"mode": "dense"}, "nothing to fuse"),
        ({"weights": {"dense": 1.0, "sparse": 0.0}}, "nothing to fuse"),
        ({"weights": {"dense": 1.0, "sparse": 0.5}}, "ignores the weights"),
    ],
)
def test_where_the_answer_would_be_another_it_is_fused_here(changes: Any, says: str) -> None:
    store = FusingMemory(honest=False)
    searcher = Searcher(collection(TIDES, store=store))
    options = SearchOptions(**{"passages": True, **changes})
    here = searcher.search("salt sea", replace(options, fusion="server"))
    assert store.asked == []
    assert here.hits == searcher.search("salt sea", options).hits
    assert says in here.notes[0]
    assert here.notes[0].startswith("Fused by m3index, not by Milvus: ")


def test_a_store_without_a_ranker() -> None:
    result = Searcher(collection(TIDES)).search("sea", SearchOptions(passages=True, fusion="server"))
    assert result.notes == ("Fused by m3index, not by Milvus: this store has no ranker of its own.",)
    like = Searcher(collection(TIDES)).like("sea", options=SearchOptions(fusion="server"))
    assert like.notes[0].startswith("Fused by m3index")


def test_many_queries_and_a_reranker() -> None:
    class Reverse:
        name = "reverse"

        def score(self, query: str, texts: Sequence[str]) -> Any:
            return np.arange(len(texts), dtype=np.float32)

    searcher = Searcher(collection(TIDES, store=FusingMemory()))
    queries = [Query("a", "salt"), Query("b", "moon"), Query("c", "nowhere")]
    options = SearchOptions(k=3, passages=True, rerank=Reverse(), rerank_depth=5)
    ours = list(searcher.run(queries, options))
    theirs = list(searcher.run(queries, replace(options, fusion="server")))
    assert [shown(r) for r in theirs] == [shown(r) for r in ours]
    assert theirs[0].hits[0].fused_rank == 5
