"""Fusion by evidence: the laws of its votes, and what it is for, on simulated legs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from m3index.search.evidence import LEAST_HITS, chance
from m3index.search.fusion import Fused, Ranking, fuse
from m3index.types import Leg

DEPTH = 100
laws = settings(max_examples=150, deadline=None)
floats = st.floats(allow_nan=False, allow_infinity=False)


def ranking(ids: Sequence[str], scores: Sequence[float], leg: Leg = Leg.DENSE, trust: float = 1.0) -> Ranking:
    return Ranking(tuple(ids), tuple(scores), tuple(f"{i}-0" for i in ids), leg, DEPTH, trust)


def fused(dense: Ranking, sparse: Ranking, *, w: tuple[float, float] = (1.0, 1.0)) -> list[Fused]:
    return fuse({"dense": dense, "sparse": sparse}, {"dense": w[0], "sparse": w[1]}, method="evidence")


def order(found: Sequence[Fused]) -> list[str]:
    return [f.id for f in found]


@st.composite
def legs(draw: st.DrawFn, of: st.SearchStrategy[float] = floats, least: int = 0) -> tuple[Ranking, Ranking]:
    names = [f"d{i:03}" for i in range(140)]
    found = []
    for leg in (Leg.DENSE, draw(st.sampled_from([Leg.BM25, Leg.LEXICAL]))):
        ids = draw(st.lists(st.sampled_from(names), unique=True, min_size=least, max_size=40))
        scores = sorted(draw(st.lists(of, min_size=len(ids), max_size=len(ids))), reverse=True)
        found.append(ranking(ids, scores, leg, draw(st.floats(0, 1)) if leg is not Leg.DENSE else 1.5))
    return found[0], found[1]


@laws
@given(legs())
def test_no_scores_make_a_sum_that_is_no_number(both: tuple[Ranking, Ranking]) -> None:
    found = fused(*both)
    assert all(math.isfinite(f.score) and f.score >= 0 for f in found)
    assert sorted(order(found)) == sorted({*both[0].ids, *both[1].ids})
    for one in both:
        if (by_chance := one.chance) is not None:
            expected = [by_chance.expected(score) for score in one.scores]
            assert all(e >= 0 and math.isfinite(e) for e in expected)
            assert all(a <= b for a, b in pairwise(expected))


@laws
@given(legs(st.integers(0, 2000).map(float), least=12), st.sampled_from([2.0**-30, 0.37, 3.0, 1e9]))
def test_the_scale_of_a_leg_does_not_matter(both: tuple[Ranking, Ranking], scale: float) -> None:
    plain = fused(*both)
    for i in (0, 1):
        scaled = list(both)
        scaled[i] = replace(both[i], scores=tuple(scale * s for s in both[i].scores))
        close(fused(*scaled), plain)


@laws
@given(legs(st.integers(0, 2000).map(float), least=12), st.integers(-5000, 5000))
def test_the_offset_of_the_dense_leg_does_not_matter(both: tuple[Ranking, Ranking], offset: int) -> None:
    dense, sparse = both
    moved = replace(dense, scores=tuple(offset + s for s in dense.scores))
    assume((dense.chance is None) == (moved.chance is None))  # equal but for rounding
    close(fused(moved, sparse), fused(*both))


def close(found: Sequence[Fused], expected: Sequence[Fused]) -> None:
    scores = {f.id: f.score for f in expected}
    assert {f.id: f.score for f in found} == pytest.approx(scores, rel=1e-6, abs=1e-9)


@laws
@given(legs(st.integers(0, 60).map(float), least=12), st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_higher_score_never_ranks_a_hit_lower(
    both: tuple[Ranking, Ranking], more: int, rng: random.Random
) -> None:
    which = rng.randrange(2)
    leg = both[which]
    id_ = rng.choice(leg.ids)
    scores = dict(zip(leg.ids, leg.scores, strict=True))
    scores[id_] += more
    ids = sorted(scores, key=lambda i: (-scores[i], leg.ids.index(i)))
    raised = list(both)
    raised[which] = replace(leg, ids=tuple(ids), scores=tuple(scores[i] for i in ids))
    # A hit that is the floor of its list and leaves it raises the floor of all: then its list is another one.
    assume(min(leg.scores) == min(raised[which].scores))
    assume(all((a.chance is None) == (b.chance is None) for a, b in zip(both, raised, strict=True)))
    before, after = fused(*both), fused(*raised)
    assert order(after).index(id_) <= order(before).index(id_)


def test_ties_go_by_id() -> None:
    ids = ["d01", "d00", *(f"d{i:02}" for i in range(2, 12))]
    tied = [3.0, 3.0, *(1.0 - i / 20 for i in range(10))]
    for sparse in (Ranking(leg=Leg.BM25), ranking(ids[:3], [4.0, 4.0, 1.0], Leg.BM25)):
        found = fused(ranking(ids, tied), sparse)
        assert order(found)[:2] == ["d00", "d01"]
        assert found[0].score == found[1].score


@pytest.mark.parametrize(
    ("dense", "sparse"),
    [
        (9, 12),  # too few dense hits
        (12, 0),
        (0, 12),
        (0, 0),
        (12, 1),
    ],
)
def test_short_and_empty_lists(dense: int, sparse: int) -> None:
    first = ranking([f"d{i:02}" for i in range(dense)], [1 - i / 50 for i in range(dense)])
    second = ranking(
        [f"d{i:02}" for i in range(5, 5 + sparse)], [9.0 - i / 2 for i in range(sparse)], Leg.BM25
    )
    found = fused(first, second)
    assert sorted(order(found)) == sorted({*first.ids, *second.ids})
    if 0 < dense < LEAST_HITS:
        assert found == fuse({"dense": first, "sparse": second}, {"dense": 1.0, "sparse": 1.0})
    if not dense or not sparse:
        assert order(found) == [*first.ids, *second.ids]


@pytest.mark.parametrize("level", [0.0, 0.7, -3.0])
def test_equal_scores_are_no_evidence_and_ranks_are_fused(level: float) -> None:
    ids = [f"d{i:02}" for i in range(20)]
    equal, other = ranking(ids, [level] * 20), ranking(ids[::-1], range(20, 0, -1), Leg.BM25)
    assert equal.chance is None
    assert fused(equal, other) == fuse({"dense": equal, "sparse": other}, {"dense": 1.0, "sparse": 1.0})


def test_hand_computed() -> None:
    """Ten hits; behind the first fifth, the scores are what an exponential tail of scale 2 leaves."""
    scores = [30.0, 12.0, *[2 * math.log(10 / rank) for rank in range(3, 11)]]
    by_chance = chance(scores)
    assert by_chance is not None
    assert by_chance.expected(scores[-1]) == pytest.approx(10)
    for rank in range(3, 11):  # noise: as many as its rank
        assert by_chance.expected(scores[rank - 1]) == pytest.approx(rank)
    assert by_chance.expected(30.0) == pytest.approx(10 * math.exp(-15))
    assert by_chance.vote(30.0) == pytest.approx(math.log(1 + math.log(1 + math.exp(15) / 10)))
    short = chance(scores[:5], zero_at=100)  # the other 95 have the score 0
    assert short is not None
    sums = sum(scores[1:5]), sum(math.log(100 / rank) for rank in range(2, 6))
    assert short.expected(30.0) == pytest.approx(100 * math.exp(-30 * sums[1] / sums[0]))


@pytest.mark.parametrize("leg", [Leg.DENSE, Leg.BM25])
@pytest.mark.parametrize("found", [60, 150])
def test_a_deeper_search_changes_no_vote(leg: Leg, found: int) -> None:
    scores = [50.0 / (i + 1) for i in range(found)]
    ids = [f"d{i:03}" for i in range(found)]
    shallow = replace(ranking(ids[:100], scores[:100], leg), depth=100)
    deep = replace(ranking(ids, scores, leg), depth=1000)
    assert shallow.chance == deep.chance is not None
    order_of = order(fuse({"a": deep}, {"a": 1.0}, method="evidence"))
    assert order_of == ids  # below the first 100 too


@pytest.mark.parametrize(
    ("trust", "times"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.5, 1.5), (4.0, 2.0), (5.0, 2.0)]
)
def test_a_dense_leg_speaks_for_the_sparse_one_as_far_as_it_is_trusted(trust: float, times: float) -> None:
    assert Ranking(trust=trust).unseen == times


def test_what_the_sparse_leg_has_not_found_counts_more_in_the_dense_one() -> None:
    ids = [f"d{i:02}" for i in range(20)]
    dense = ranking(ids, [1 / (i + 1) for i in range(20)], trust=3.0)
    for trust in (0.0, 0.25, 1.0):
        sparse = ranking(["d03", "zz"], [5.0, 4.0], Leg.BM25, trust)
        found = {f.id: f for f in fused(dense, sparse, w=(0.5, 2.0))}
        vote = dense.chance.vote(1 / 4) if dense.chance else 0.0
        word = sparse.chance.vote(5.0) if sparse.chance else 0.0
        times = dense.unseen - (dense.unseen - 1) * trust
        assert found["d03"].contributions == pytest.approx(
            {
                "dense": 0.5 * 3.0 * times * vote,
                "sparse": 2.0 * trust * word,
            }
        )
        unseen = dense.chance.vote(1.0) if dense.chance else 0.0
        assert found["d00"].contributions == pytest.approx({"dense": 0.5 * 3.0 * dense.unseen * unseen})
    untrusted = ranking(ids[::-1], [9.0 - i / 4 for i in range(20)], Leg.BM25, 0.0)
    assert order(fused(dense, untrusted)) == ids


def simulated(rng: np.random.Generator, knows: float) -> list[float]:
    """Scores of 1,000 documents, of which the first is relevant: better by `knows`."""
    scores = rng.exponential(1.0, 1000)
    scores[0] += knows
    return [float(s) for s in scores]


def top(scores: Sequence[float], leg: Leg, trust: float = 1.0) -> Ranking:
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[:DEPTH]
    return ranking([f"d{i:04}" for i in best], [scores[i] for i in best], leg, trust)


def gain(found: Sequence[str]) -> float:
    return 1 / math.log2(found.index("d0000") + 2) if "d0000" in found[:10] else 0.0


@pytest.mark.parametrize("noise", [Leg.DENSE, Leg.BM25])
def test_a_leg_of_noise_costs_less_than_the_interval(noise: Leg) -> None:
    """And ranks cannot tell: reciprocal rank fusion loses a third with the same legs."""
    rng = np.random.default_rng(5)
    alone, both, ranks = [], [], []
    for _ in range(200):
        good = top(simulated(rng, 7.0), Leg.BM25 if noise is Leg.DENSE else Leg.DENSE)
        # What the calibration and the words of the query say of such a leg.
        useless = top(simulated(rng, 0.0), noise, 0.07)
        alone.append(gain(good.ids))
        found = {"a": good, "b": useless}
        both.append(gain(order(fuse(found, {"a": 1.0, "b": 1.0}, method="evidence"))))
        ranks.append(gain(order(fuse(found, {"a": 1.0, "b": 1.0}))))
    interval = 1.96 * np.std(alone) / math.sqrt(len(alone))
    assert abs(np.mean(both) - np.mean(alone)) < interval
    assert np.mean(ranks) < np.mean(alone) - 3 * interval


def test_noise_expects_its_own_rank() -> None:
    rng = np.random.default_rng(3)
    expected = []
    for _ in range(300):
        one = top(simulated(rng, 0.0), Leg.DENSE)
        assert one.chance is not None
        expected.append([one.chance.expected(one.scores[rank - 1]) for rank in (3, 10, 30)])
    assert np.median(expected, axis=0) == pytest.approx([3, 10, 30], rel=0.25)


def test_two_lists_of_100_take_less_than_a_millisecond() -> None:
    rng = np.random.default_rng(1)
    dense, sparse = top(simulated(rng, 3.0), Leg.DENSE), top(simulated(rng, 3.0), Leg.BM25)
    seconds = []
    for _ in range(50):
        started = time.thread_time()
        fused(dense, sparse)
        seconds.append(time.thread_time() - started)
    assert sorted(seconds)[10] < 0.001
