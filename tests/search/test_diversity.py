from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.search.diversity import diversified


def at(*degrees: float) -> Any:
    """Unit vectors in a plane."""
    return np.array([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees], np.float32)


def marginal(scores: list[float], vectors: Any, diversity: float, hit: int, before: list[int]) -> float:
    """Carbonell and Goldstein's formula, word for word."""
    low, high = min(scores), max(scores)
    relevance = 1.0 if high == low else (scores[hit] - low) / (high - low)
    similarities = [float(vectors[hit].astype(float) @ vectors[i].astype(float)) for i in before]
    return (1 - diversity) * relevance - diversity * max(similarities, default=0.0)


def test_a_hit_like_the_first_one_gives_way_to_another() -> None:
    """Scores 1, 0.9, 0.5 are relevances of 1, 0.8, 0. The second is the first again (cosine 1), the third at
    right angles (cosine 0). At diversity d: 0.8 (1 - d) - d against 0, so they change places at 4 / 9."""
    scores, vectors = [1.0, 0.9, 0.5], at(0, 0, 90)
    assert diversified(scores, vectors, 0.44) == [0, 1, 2]
    assert diversified(scores, vectors, 0.45) == [0, 2, 1]


def test_without_diversity_the_order_stays_and_with_nothing_else_relevance_is_ignored() -> None:
    scores, vectors = [5.0, 4.0, 3.0, 2.0], at(0, 10, 90, 180)
    assert diversified(scores, vectors, 0.0) == [0, 1, 2, 3]
    assert diversified(scores, vectors, 1.0) == [0, 3, 2, 1]


def test_equal_scores_are_equally_relevant() -> None:
    assert diversified([0.2, 0.2, 0.2], at(0, 1, 90), 0.5) == [0, 2, 1]
    assert diversified([], np.zeros((0, 4), np.float32), 0.5) == []
    assert diversified([-3.0], at(0), 0.5) == [0]


@settings(deadline=None)
@given(data=st.data(), diversity=st.floats(0, 1), count=st.integers(1, 12))
def test_it_is_the_formula_of_the_paper(data: st.DataObject, diversity: float, count: int) -> None:
    scores = sorted(data.draw(st.lists(st.floats(-5, 5), min_size=count, max_size=count)), reverse=True)
    vectors = np.random.default_rng(data.draw(st.integers(0, 1000))).standard_normal((count, 5))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    order = diversified(scores, vectors, diversity)
    assert sorted(order) == list(range(count))
    assert order[0] == 0
    for place, hit in enumerate(order):
        before, left = order[:place], order[place:]
        best = max(marginal(scores, vectors, diversity, other, before) for other in left)
        assert marginal(scores, vectors, diversity, hit, before) == pytest.approx(best, abs=1e-6)
