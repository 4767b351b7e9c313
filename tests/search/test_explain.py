from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search.corpus import TIDES, collection

from m3index.errors import UsageError
from m3index.search.explain import Weighing, explain, lexical_matches
from m3index.search.fusion import METHODS, Fused, Ranking, fuse
from m3index.search.options import SearchOptions
from m3index.search.searcher import Searcher
from m3index.types import Leg, SparseVector

IDS = [f"d{i:02}" for i in range(16)]


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    ids = draw(st.lists(st.sampled_from(IDS), unique=True, min_size=1, max_size=12))
    scores = sorted(draw(st.lists(st.integers(0, 40), min_size=len(ids), max_size=len(ids))), reverse=True)
    return Ranking(
        tuple(ids), tuple(float(s) for s in scores), tuple(ids), draw(st.sampled_from(list(Leg))), depth=10
    )


def at(first: Ranking, second: Ranking, share: float, method: Any, k: float) -> list[Fused]:
    return fuse({"dense": first, "sparse": second}, {"dense": 1 - share, "sparse": share}, method=method, k=k)


def between(boundaries: Sequence[float]) -> list[float]:
    """A share inside every stretch, well away from its ends."""
    points = sorted({0.0, 1.0, *boundaries})
    return [(a + b) / 2 for a, b in pairwise(points) if b - a > 1e-6]


@settings(max_examples=120, deadline=None)
@given(rankings(), rankings(), st.sampled_from(METHODS), st.sampled_from([0.0, 10.0, 60.0]))
def test_ranks_at_every_share_are_those_of_fusing_anew(
    first: Ranking, second: Ranking, method: Any, k: float
) -> None:
    weighing = Weighing(first, second, method=method, k=k)
    stretches = {id_: weighing.ranks(id_) for id_ in weighing.ids}
    for ranges in stretches.values():
        assert ranges[0].start == 0.0
        assert ranges[-1].end == 1.0
        assert all(a.end == b.start and a.rank != b.rank for a, b in pairwise(ranges))
    for share in between([r.end for ranges in stretches.values() for r in ranges]):
        scores = {f.id: f.score for f in at(first, second, share, method, k)}
        for id_, ranges in stretches.items():
            rank = next(r.rank for r in ranges if r.start < share < r.end)
            # Scores that are equal but for rounding may stand either way round.
            surely_before = sum(s > scores[id_] + 1e-12 for s in scores.values())
            maybe_before = sum(s >= scores[id_] - 1e-12 for s in scores.values())
            assert surely_before + 1 <= rank <= maybe_before


@settings(max_examples=120, deadline=None)
@given(rankings(), rankings(), st.sampled_from(METHODS), st.randoms())
def test_crossings_are_where_two_hits_change_places(
    first: Ranking, second: Ranking, method: Any, rng: random.Random
) -> None:
    weighing = Weighing(first, second, method=method)
    one, other = rng.choice(weighing.ids), rng.choice(weighing.ids)

    def ahead(share: float) -> float:
        scores = {f.id: f.score for f in at(first, second, share, method, 60.0)}
        return scores[one] - scores[other]

    crossing = weighing.crossing(one, other)
    if crossing is None:
        signs = {np.sign(d) for share in np.linspace(0.02, 0.98, 25) if abs(d := ahead(float(share))) > 1e-12}
        assert len(signs) <= 1
        return
    share, overtakes = crossing
    assert 0 < share < 1
    assert weighing.crossing(other, one) == (pytest.approx(share), not overtakes)
    assert abs(ahead(share)) < 1e-12
    above, below = ahead((share + 1) / 2), ahead(share / 2)
    assert (above > below) == overtakes
    assert above * below <= 0


def test_hand_computed_crossing() -> None:
    first = Ranking(("a", "b"), (0.9, 0.8), ("a-0", "b-0"))
    second = Ranking(("b", "c"), (5.0, 4.0), ("b-0", "c-0"))
    weights = {"dense": 0.9, "sparse": 0.1}
    fused = fuse({"dense": first, "sparse": second}, weights)
    assert [f.id for f in fused] == ["b", "a", "c"]
    found = explain(fused, {"dense": first, "sparse": second}, weights, [[], [], []])
    # a: (1-w)/61; b: (1-w)/62 + w/61. They are level at w = (1/61 - 1/62) / (1/61 - 1/62 + 1/61).
    gap = 1 / 61 - 1 / 62
    level = gap / (gap + 1 / 61)
    b = found[0]
    assert (b.leg, b.share) == ("sparse", pytest.approx(0.1))
    assert [(c.other, c.overtakes) for c in b.crossings] == [(2, True)]
    assert b.crossings[0].share == pytest.approx(level)
    assert [(r.rank, pytest.approx(r.end)) for r in b.ranks] == [(2, level), (1, 1.0)]
    assert [c.other for c in found[1].crossings] == [1, 3]


def test_lexical_matches() -> None:
    query = SparseVector(np.array([3, 5, 9], np.int32), np.array([0.5, 2.0, 1.0], np.float32))
    passage = SparseVector(np.array([1, 3, 5], np.int32), np.array([9.0, 4.0, 0.25], np.float32))
    found = lexical_matches(query, passage, {3: "salt", 5: "sea", 9: "moon"})
    assert [(m.token, m.query_weight, m.passage_weight, m.score) for m in found] == [
        ("salt", 0.5, 4.0, 2.0),
        ("sea", 2.0, 0.25, 0.5),
    ]


def test_a_search_explains_its_lexical_scores() -> None:
    target = collection(TIDES)
    result = Searcher(target).search("salt water in the sea", SearchOptions(explain=True))
    assert len(result.explanations) == len(result.hits)
    assert "explain" in result.timings
    for hit, explanation in zip(result.hits, result.explanations, strict=True):
        lexical = hit.legs.get("sparse")
        total = sum(m.score or 0 for m in explanation.matches)
        assert total == pytest.approx(lexical.score if lexical else 0.0, rel=1e-6)
        assert explanation.share == 0.5
        assert any(r.rank == hit.rank and r.start <= 0.5 <= r.end for r in explanation.ranks)


def test_a_search_explains_bm25_by_its_terms() -> None:
    result = Searcher(collection(TIDES, "bm25")).search("Salt, Wasser 水", SearchOptions(explain=True))
    matched = {
        hit.doc_id: [m.token for m in e.matches]
        for hit, e in zip(result.hits, result.explanations, strict=True)
    }
    assert matched == {"bread": ["salt"], "soup": ["salt"], "sea": ["salt"], "tide": [], "moon": []}
    assert all(m.score is None for e in result.explanations for m in e.matches)


def test_one_leg_has_matches_and_no_crossings() -> None:
    searcher = Searcher(collection(TIDES))
    [explanation, *_] = searcher.search("moon", SearchOptions(mode="sparse", explain=True)).explanations
    assert (explanation.leg, explanation.crossings, explanation.ranks) == (None, (), ())
    assert len(explanation.matches) == 1
    [explanation, *_] = searcher.search("moon", SearchOptions(mode="dense", explain=True)).explanations
    assert explanation.matches == ()


def test_reranked_hits_are_explained_by_their_fused_ranks() -> None:
    class Reverse:
        name = "reverse"

        def score(self, query: str, texts: Sequence[str]) -> Any:
            return np.arange(len(texts), dtype=np.float32)

    result = Searcher(collection(TIDES)).search("moon", SearchOptions(explain=True, rerank=Reverse()))
    assert [hit.fused_rank for hit in result.hits] == [5, 4, 3, 2, 1]
    for hit, explanation in zip(result.hits, result.explanations, strict=True):
        assert any(r.rank == hit.fused_rank and r.start <= 0.5 <= r.end for r in explanation.ranks)


def test_similar_documents_have_no_explanation() -> None:
    with pytest.raises(UsageError, match="no explanation"):
        Searcher(collection(TIDES)).similar("sea", SearchOptions(explain=True))


def test_explaining_costs_no_further_search() -> None:
    target = collection(TIDES)
    calls: list[Leg] = []
    inner = target.store.search

    def counted(name: str, leg: Leg, *rest: Any) -> Any:
        calls.append(leg)
        return inner(name, leg, *rest)

    target.store.search = counted  # type: ignore[method-assign]
    Searcher(target).search("sea", SearchOptions(explain=True))
    assert sorted(calls) == [Leg.DENSE, Leg.LEXICAL]
