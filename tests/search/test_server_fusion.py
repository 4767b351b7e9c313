from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from search.corpus import TIDES, Doc, collection

from m3index.search.options import SearchOptions
from m3index.search.result import SearchResult
from m3index.search.searcher import Searcher
from m3index.search.server_fusion import FusingStore
from m3index.search.synonyms import parse_synonyms
from m3index.store.filter import Compare, Filter
from m3index.store.memory import MemoryStore
from m3index.store.milvus import MilvusStore
from m3index.types import Candidate, EncodedBatch, Leg, Query, SparseVector


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
    assert set(theirs.timings) == {"load", "encode", "server", "fetch", "total"}
    assert (theirs.legs, theirs.hits[0].legs) == ({}, {})


def test_weights_are_sent_between_0_and_1() -> None:
    store = FusingMemory()
    options = SearchOptions(passages=True, fusion="server", weights={"dense": 1.0, "sparse": 4.0})
    Searcher(collection(TIDES, store=store)).search("sea", options)
    assert store.asked == [{Leg.DENSE: 0.25, Leg.LEXICAL: 1.0}]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"passages": False}, "the ranker of Milvus fuses passages, not documents"),
        ({"explain": True}, "does not return the ranks of the legs"),
        ({"mode": "dense"}, "does not have two legs in one collection"),
        ({"weights": {"dense": 1.0, "sparse": 0.0}}, "does not have two legs in one collection"),
        ({"weights": {"dense": 1.0, "sparse": 0.5}}, "ignores the weights"),
        ({"rrf_k": 0.0}, "the k of Milvus must be above 0"),
        ({"boost": "source=default: 2"}, "Milvus ignores boosts in a search of two legs"),
        ({"boost": "ordinal: exp(0, scale=1)", "diversity": 0.5}, "Milvus ignores boosts"),
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
    assert here.notes[0].startswith("Fused by m3index: ")


def test_a_store_without_a_ranker() -> None:
    result = Searcher(collection(TIDES)).search("sea", SearchOptions(passages=True, fusion="server"))
    assert result.notes == ("Fused by m3index: this store has no ranker.",)
    similar = Searcher(collection(TIDES)).similar("sea", SearchOptions(fusion="server"))
    assert similar.notes[0].startswith("Fused by m3index")


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


def test_what_milvus_has_fused_is_diversified_and_cut_into_pages() -> None:
    searcher = Searcher(collection(TIDES, store=FusingMemory()))
    ours = searcher.search("salt sea", SearchOptions(passages=True, diversity=0.6, fusion="rrf"))
    theirs = searcher.search("salt sea", SearchOptions(passages=True, diversity=0.6, fusion="server"))
    assert theirs.notes == ("Fused by Milvus.",)
    assert [hit.passage_id for hit in theirs] == [hit.passage_id for hit in ours]
    assert [hit.fused_rank for hit in theirs] == [hit.fused_rank for hit in ours] != list(range(1, 11))
    options = SearchOptions(passages=True, diversity=0.6, fusion="server", k=3)
    pages = [searcher.search("salt sea", replace(options, page=page)) for page in (1, 2, 3)]
    assert [hit.rank for page in pages for hit in page] == list(range(1, 10))
    assert [hit.passage_id for page in pages for hit in page] == [hit.passage_id for hit in ours][:9]


def test_a_sort_is_not_left_to_milvus() -> None:
    docs = [replace(doc, fields={"n": n}) for n, doc in enumerate(TIDES)]
    store = FusingMemory()
    searcher = Searcher(collection(docs, store=store, fields={"n": "int"}))
    result = searcher.search("salt sea", SearchOptions(passages=True, sort="n:desc", fusion="server"))
    assert result.notes == ("Fused by m3index: Milvus does not sort what it has fused.",)
    assert result[0].doc_id == TIDES[-1].doc_id
    assert store.asked == []


class FineEncoder(FakeEncoder):
    """Lexical weights that differ by token and by text, so that no two scores of a leg are equal."""

    def _encode(self, ids: Sequence[Any], lexical: bool, multi_vector: bool) -> EncodedBatch:
        batch = super()._encode(ids, lexical, multi_vector)
        if batch.lexical is None:
            return batch
        lengths = np.diff(batch.lexical.indptr)
        weights = (1 + batch.lexical.indices / 50_000) * (1 + np.repeat(lengths, lengths) / 997)
        return replace(batch, lexical=replace(batch.lexical, values=weights.astype(np.float32)))


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusStore]:
    store = MilvusStore.open(str(tmp_path_factory.mktemp("lite") / "fusion.db"))
    yield store
    store.close()


@pytest.mark.parametrize("sparse", ["lexical", "bm25"])
def test_milvus_lite_gives_our_answer(lite: MilvusStore, sparse: Any) -> None:
    rng = random.Random(3)
    words = [f"w{i}" for i in range(400)]
    docs = [Doc(f"d{i}", [" ".join(rng.sample(words, 8 + i % 40))]) for i in range(120)]
    encoder = FineEncoder(limit=512)
    target = collection(docs, sparse, store=lite, encoder=encoder, name=f"fusion_{sparse}__g1")
    searcher = Searcher(target)
    compared = 0
    for i in range(12):
        text = " ".join(rng.sample(words, 20))
        where = Compare("doc_id", "!=", f"d{i}")
        options = SearchOptions(k=5, passages=True, depth=30, where=where, fusion="rrf")
        ours = searcher.search(text, options)
        if all(len(set(leg.scores)) == len(leg) for leg in ours.legs.values()):
            theirs = searcher.search(text, replace(options, fusion="server"))
            assert theirs.notes == ("Fused by Milvus.",)
            assert [hit.score for hit in theirs.hits] == pytest.approx(
                [hit.score for hit in ours.hits], rel=1e-5
            )
            scores = {hit.passage_id: hit.score for hit in searcher.search(text, replace(options, k=30)).hits}
            assert [scores[hit.passage_id] for hit in theirs.hits] == pytest.approx(list(scores.values())[:5])
            compared += 1
    assert compared >= 4


def test_milvus_lite_ignores_weights_and_is_found_out(lite: MilvusStore) -> None:
    for sparse in ("lexical", "bm25"):
        target = collection(TIDES, sparse, store=lite, name=f"weighed_{sparse}__g1")  # type: ignore[arg-type]
        assert not lite.weighs_legs(target.collection)
        options = SearchOptions(passages=True, fusion="server", weights={"dense": 0.9, "sparse": 0.1})
        result = Searcher(target).search("salt sea", options)
        assert "ignores the weights" in result.notes[0]
        assert set(result.legs) == {"dense", "sparse"}
    empty = collection([], store=lite, name="empty__g1")
    assert not lite.weighs_legs(empty.collection)


def test_a_query_without_lexical_tokens_on_milvus_lite(lite: MilvusStore) -> None:
    target = collection(TIDES, store=lite, name="silent__g1")
    empty = SparseVector(np.array([], np.int32), np.array([], np.float32))
    encoded = target.encoder().encode_queries(["sea", "salt"], lexical=True)
    assert encoded.lexical is not None
    queries = {Leg.DENSE: list(encoded.dense), Leg.LEXICAL: [empty, encoded.lexical.row(1)]}
    one, both = lite.hybrid(target.collection, queries, None, depth=9, limit=9, k=60)
    assert one[0].score == pytest.approx(1 / 61)
    assert both[0].score > 1.5 / 61


@pytest.mark.parametrize(
    ("query", "more", "says"),
    [
        ('"the sea"', {}, "m3index looks for phrases and exclusions in what each leg finds"),
        ("sea -moon", {}, "m3index looks for phrases and exclusions in what each leg finds"),
        ("sea", {"facets": ["lang"]}, "the facets are counted over what each leg finds"),
        ("sea", {"facets": ["lang"], "facets_over": "filter"}, ""),
        ('"the sea" -moon', {"syntax": "plain"}, ""),
    ],
)
def test_what_milvus_does_not_do(query: str, more: dict[str, Any], says: str) -> None:
    searcher = Searcher(collection(TIDES, store=FusingMemory(), fields={"lang": "str"}))
    options = SearchOptions(k=4, passages=True, fusion="server", **more)
    result = searcher.search(query, options)
    ours = searcher.search(query, replace(options, fusion="rrf"))
    assert shown(result) == shown(ours)
    assert result.facets == ours.facets
    assert any(
        note.startswith(f"Fused by m3index: {says}" if says else "Fused by Milvus") for note in result.notes
    )


def test_synonyms_reach_the_ranker_of_milvus() -> None:
    target = replace(collection(TIDES, "bm25", store=FusingMemory()), synonyms=parse_synonyms(["ocean, sea"]))
    options = SearchOptions(k=4, passages=True, fusion="server")
    result, ours = (Searcher(target).search("ocean", replace(options, fusion=f)) for f in ("server", "rrf"))
    assert shown(result) == shown(ours)
    assert result.notes == ("Fused by Milvus.", 'Synonyms of "ocean", for the sparse leg: sea.')
