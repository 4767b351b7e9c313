from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fakes import FakeEncoder
from search.corpus import TIDES, collection

from m3index.errors import MissingHeadError, UsageError
from m3index.search.options import SearchOptions
from m3index.search.rerank import (
    ColbertReranker,
    CrossReranker,
    M3Reranker,
    late_interaction,
    lexical_score,
    load_reranker,
)
from m3index.search.searcher import Searcher
from m3index.types import FloatArray, SparseVector

TEXTS = ["the moon pulls the sea", "flour water salt yeast", "the sea is salt water"]


def unit_rows(rng: np.random.Generator, n: int, width: int = 8) -> FloatArray:
    rows = rng.standard_normal((n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_late_interaction_by_plain_loops() -> None:
    rng = np.random.default_rng(1)
    query, texts = unit_rows(rng, 4), [unit_rows(rng, n) for n in (1, 5, 30)]
    expected = [sum(max(float(q @ t) for t in text) for q in query) / len(query) for text in texts]
    assert late_interaction(query, texts) == pytest.approx(expected, rel=1e-5)
    assert late_interaction(query, texts).dtype == np.float32


def test_a_text_that_is_the_query_scores_one() -> None:
    query = unit_rows(np.random.default_rng(2), 6)
    assert late_interaction(query, [query]) == pytest.approx([1.0], rel=1e-6)


def test_lexical_score_by_hand() -> None:
    a = SparseVector(np.array([1, 4, 6], np.int32), np.array([1.0, 2.0, 3.0], np.float32))
    b = SparseVector(np.array([0, 4, 6], np.int32), np.array([9.0, 0.5, 2.0], np.float32))
    assert lexical_score(a, b) == 7.0
    assert lexical_score(a, SparseVector(np.array([], np.int32), np.array([], np.float32))) == 0.0


def test_colbert_uses_the_encoders_own_vectors() -> None:
    encoder = FakeEncoder()
    scores = ColbertReranker(encoder).score("sea water", TEXTS)
    [query] = encoder.encode_queries(["sea water"], lexical=False, multi_vector=True).multi_vector or ()
    ids = [t.ids for t in encoder.tokenizer.documents(TEXTS)]
    texts = encoder.encode_ids(ids, lexical=False, multi_vector=True).multi_vector
    assert texts is not None
    assert scores == pytest.approx(late_interaction(query, texts))
    assert int(np.argmax(scores)) == 2


def test_m3_is_the_weighted_mean_of_three_scores() -> None:
    encoder = FakeEncoder()
    asked = encoder.encode_queries(["sea water"], lexical=True, multi_vector=True)
    ids = [t.ids for t in encoder.tokenizer.documents(TEXTS)]
    found = encoder.encode_ids(ids, lexical=True, multi_vector=True)
    assert asked.lexical is not None
    assert found.lexical is not None
    assert asked.multi_vector is not None
    assert found.multi_vector is not None
    dense = found.dense @ asked.dense[0]
    sparse = np.array([lexical_score(asked.lexical.row(0), found.lexical.row(i)) for i in range(3)])
    colbert = late_interaction(asked.multi_vector[0], found.multi_vector)
    weights = {"dense": 2.0, "sparse": 1.0, "colbert": 5.0}
    expected = (2 * dense + sparse + 5 * colbert) / 8
    assert M3Reranker(encoder, weights).score("sea water", TEXTS) == pytest.approx(expected, rel=1e-5)
    assert M3Reranker(encoder, {"sparse": 3.0}).score("sea water", TEXTS) == pytest.approx(sparse, rel=1e-5)
    default = 0.4 * dense + 0.2 * sparse + 0.4 * colbert
    assert M3Reranker(encoder).score("sea water", TEXTS) == pytest.approx(default, rel=1e-5)


def test_a_text_over_the_limit_is_still_read() -> None:
    encoder = FakeEncoder(limit=8)
    assert len(ColbertReranker(encoder).score("sea", ["salt water " * 50])) == 1
    assert len(M3Reranker(encoder).score("sea", ["salt water " * 50])) == 1


def test_missing_heads_are_refused() -> None:
    dense_only = FakeEncoder(lexical=False)
    for name in ("colbert", "m3"):
        with pytest.raises(MissingHeadError, match="needs a multi-vector head, which fake lacks"):
            load_reranker(lambda: dense_only, name)


@pytest.mark.parametrize(
    "weights", [{"dense": 0.0}, {"dense": -1.0, "sparse": 2.0}, {"bm25": 1.0}, {"dense": float("nan")}]
)
def test_weights_of_m3_that_cannot_be(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        load_reranker(FakeEncoder, "m3", weights)


def test_weights_go_with_m3_only() -> None:
    assert load_reranker(FakeEncoder, "colbert").name == "colbert"
    with pytest.raises(UsageError, match="is only for the reranker m3"):
        load_reranker(FakeEncoder, "some/model", {"dense": 1.0})


class Lengths:
    """A cross-encoder that likes long texts."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        self.calls.append((query, list(texts)))
        return np.array([len(text) for text in texts], np.float32)


def test_reranked_hits_go_by_the_rerankers_score_and_keep_the_fused_one() -> None:
    scorer = Lengths()
    searcher = Searcher(collection(TIDES))
    fused = searcher.search("the moon pulls")
    options = SearchOptions(k=3, rerank=CrossReranker("lengths", scorer), rerank_depth=4)
    result = searcher.search("the moon pulls", options)
    [(query, texts)] = scorer.calls
    assert query == "the moon pulls"
    assert len(texts) == 4
    assert "Tides\nthe moon pulls the sea" in texts
    assert [hit.rerank_score for hit in result.hits] == sorted(map(len, texts), reverse=True)[:3]
    assert [hit.rank for hit in result.hits] == [1, 2, 3]
    before = {hit.doc_id: hit for hit in fused.hits}
    for hit in result.hits:
        assert (hit.fused_rank, hit.score) == (before[hit.doc_id].rank, before[hit.doc_id].score)
    assert "rerank" in result.timings


def test_equal_scores_keep_the_fused_order() -> None:
    class Same:
        name = "same"

        def score(self, query: str, texts: Sequence[str]) -> FloatArray:
            return np.ones(len(texts), np.float32)

    searcher = Searcher(collection(TIDES))
    plain = searcher.search("salt water")
    reranked = searcher.search("salt water", SearchOptions(rerank=Same()))
    assert [h.doc_id for h in reranked.hits] == [h.doc_id for h in plain.hits]


def test_nothing_found_is_not_reranked() -> None:
    scorer = Lengths()
    options = SearchOptions(mode="sparse", rerank=CrossReranker("lengths", scorer))
    assert Searcher(collection(TIDES)).search("どこにもない", options).hits == ()
    assert scorer.calls == []
