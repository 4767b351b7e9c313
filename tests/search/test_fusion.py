from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3index.errors import UsageError
from m3index.search.fusion import METHODS, Fused, Method, Ranking, check_weights, combine, fuse
from m3index.types import Leg

IDS = [f"d{i:02}" for i in range(30)]
DEPTH = 16
WEIGHTS = [0.25, 0.5, 1.0, 2.0, 3.0]


def ranking(ids: Sequence[str], scores: Sequence[float] | None = None, leg: Leg = Leg.DENSE) -> Ranking:
    values = [float(len(ids) - i) for i in range(len(ids))] if scores is None else list(scores)
    return Ranking(tuple(ids), tuple(values), tuple(f"{i}-0" for i in ids), leg, DEPTH)


def order(fused: Sequence[Fused]) -> list[str]:
    return [f.id for f in fused]


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    ids = draw(st.lists(st.sampled_from(IDS), unique=True, max_size=20))
    leg = draw(st.sampled_from([Leg.DENSE, Leg.LEXICAL, Leg.BM25]))
    least = -5 if leg is Leg.DENSE else 0
    scores = draw(st.lists(st.floats(least, 30, width=32), min_size=len(ids), max_size=len(ids)))
    return ranking(ids, sorted(scores, reverse=True), leg)


legs = st.dictionaries(st.sampled_from(["dense", "sparse", "more", "most"]), rankings(), min_size=1)
methods = st.sampled_from(METHODS)
laws = settings(max_examples=150, deadline=None)


def exact_rrf(found: dict[str, list[str]], weights: dict[str, Fraction], k: Fraction) -> dict[str, Fraction]:
    """Written anew, in exact arithmetic, from the formula."""
    totals: dict[str, Fraction] = {}
    for leg, ids in found.items():
        for place, id_ in enumerate(ids):
            totals[id_] = totals.get(id_, Fraction(0)) + weights[leg] / (k + place + 1)
    return totals


def test_rrf_is_exact_arithmetic_over_thousands_of_rankings() -> None:
    rng = random.Random(7)
    for _ in range(3000):
        found = {f"leg{i}": rng.sample(IDS, rng.randint(0, 30)) for i in range(rng.randint(1, 4))}
        weights = {leg: rng.choice(WEIGHTS) for leg in found}
        k = rng.choice([0.0, 1.0, 10.0, 60.0])
        ours = fuse({leg: ranking(ids) for leg, ids in found.items()}, weights, k=k)
        exact = exact_rrf(found, {n: Fraction(w) for n, w in weights.items()}, Fraction(k))
        assert set(order(ours)) == set(exact)
        for f in ours:
            assert abs(Fraction(f.score) - exact[f.id]) <= exact[f.id] * Fraction(1, 2**50)
        for before, after in pairwise(ours):
            assert exact[before.id] >= exact[after.id] * (1 - Fraction(1, 2**50))
            if sorted(before.contributions.values()) == sorted(after.contributions.values()):
                assert before.id < after.id


def naive_values(method: Method, scores: Sequence[float], leg: Leg) -> list[float]:
    """The three normalisations, written anew with statistics and plain loops."""
    import statistics

    if method == "arctan":
        return [
            2 / math.pi * math.atan(s) if leg is Leg.BM25 else math.atan(s) / math.pi + 0.5 for s in scores
        ]
    if method == "minmax":
        spread = max(scores) - min(scores)
        return [1.0 if spread == 0 else (s - min(scores)) / spread for s in scores]
    mean, sd = statistics.fmean(scores), statistics.pstdev(scores)
    if sd == 0:
        return [0.5] * len(scores)
    low, high = mean - 3 * sd, mean + 3 * sd
    return [max(0.0, min(1.0, (s - low) / (high - low))) for s in scores]


@pytest.mark.parametrize("method", ["minmax", "dbsf", "arctan"])
def test_normalised_scores_over_thousands_of_rankings(method: Method) -> None:
    rng = random.Random(11)
    for _ in range(1500):
        found: dict[str, Ranking] = {}
        for leg in ("dense", "sparse", "more")[: rng.randint(1, 3)]:
            ids = rng.sample(IDS, rng.randint(1, 30))
            scores = sorted((rng.choice([rng.random(), rng.gauss(12, 4), 1.0]) for _ in ids), reverse=True)
            found[leg] = ranking(ids, scores, rng.choice(list(Leg)))
        weights = {leg: rng.choice(WEIGHTS) for leg in found}
        totals: dict[str, float] = {}
        for leg, r in found.items():
            for id_, value in zip(r.ids, naive_values(method, r.scores, r.leg), strict=True):
                totals[id_] = totals.get(id_, 0.0) + weights[leg] * value
        ours = fuse(found, weights, method=method)
        assert {f.id: f.score for f in ours} == pytest.approx(totals, abs=1e-9)
        for before, after in pairwise(ours):
            assert (-before.score, before.id) < (-after.score, after.id)


@laws
@given(legs, methods, st.randoms())
def test_the_order_of_the_legs_changes_nothing(
    found: dict[str, Ranking], method: Method, rng: random.Random
) -> None:
    weights = {leg: rng.choice([0.1, 0.3, 0.7, 1.0]) for leg in found}
    shuffled = list(found)
    rng.shuffle(shuffled)
    assert fuse(found, weights, method=method) == fuse(
        {n: found[n] for n in shuffled}, weights, method=method
    )


@laws
@given(legs, rankings(), methods)
def test_a_zero_weight_equals_no_leg(found: dict[str, Ranking], extra: Ranking, method: Method) -> None:
    weights = dict.fromkeys(found, 0.7)
    with_it = fuse(found | {"extra": extra}, weights | {"extra": 0.0}, method=method)
    assert with_it == fuse(found, weights, method=method)


@laws
@given(legs, rankings(), methods)
def test_an_empty_leg_changes_nothing(found: dict[str, Ranking], extra: Ranking, method: Method) -> None:
    weights = dict.fromkeys([*found, "empty"], 0.7)
    assert fuse(found | {"empty": Ranking()}, weights, method=method) == fuse(found, weights, method=method)


@laws
@given(legs, methods, st.integers(-8, 8))
def test_the_scale_of_the_weights_changes_no_order(
    found: dict[str, Ranking], method: Method, power: int
) -> None:
    weights = {leg: 0.3 + 0.2 * i for i, leg in enumerate(found)}
    scaled = {leg: weight * 2.0**power for leg, weight in weights.items()}
    assert order(fuse(found, weights, method=method)) == order(fuse(found, scaled, method=method))


@laws
@given(legs, methods)
def test_nothing_is_lost_and_nothing_is_doubled(found: dict[str, Ranking], method: Method) -> None:
    fused = fuse(found, dict.fromkeys(found, 1.0), method=method)
    assert sorted(order(fused)) == sorted({id_ for r in found.values() for id_ in r.ids})
    for f in fused:
        assert set(f.contributions) == {leg for leg, r in found.items() if f.id in r.ids}
        assert f.score == math.fsum(f.contributions.values())
        assert all(value >= 0 for value in f.contributions.values())


@laws
@given(rankings(), methods, st.sampled_from(WEIGHTS))
def test_a_leg_alone_keeps_its_order(alone: Ranking, method: Method, weight: float) -> None:
    fused = combine({"dense": alone}, {"dense": weight}, method=method)
    assert order(fused) == list(alone.ids)
    assert [f.score for f in fused] == list(alone.scores)
    if method == "rrf":
        assert order(fuse({"dense": alone}, {"dense": weight})) == list(alone.ids)


def test_ties_go_by_id() -> None:
    found = {"dense": ranking(["b", "a"]), "sparse": ranking(["a", "b"])}
    assert order(fuse(found, {"dense": 0.3, "sparse": 0.3})) == ["a", "b"]
    assert order(fuse(found, {"dense": 0.4, "sparse": 0.3})) == ["b", "a"]


def test_combine_with_all_but_one_leg_weighed_zero_is_that_leg() -> None:
    found = {"dense": ranking(["b", "a"], [0.9, 0.1]), "sparse": ranking(["a", "c"])}
    fused = combine(found, {"dense": 0.0, "sparse": 2.0})
    assert fused == [Fused("a", 2.0, {"sparse": 2.0}), Fused("c", 1.0, {"sparse": 1.0})]


def test_hand_computed() -> None:
    found = {"dense": ranking(["a", "b"], [0.9, 0.5]), "sparse": ranking(["b", "c"], [12.0, 4.0], Leg.BM25)}
    weights = {"dense": 0.7, "sparse": 0.3}
    rrf = {f.id: f.score for f in fuse(found, weights)}
    assert rrf == pytest.approx({"a": 0.7 / 61, "b": 0.7 / 62 + 0.3 / 61, "c": 0.3 / 62})
    assert {f.id: f.score for f in fuse(found, weights, method="minmax")} == {"a": 0.7, "b": 0.3, "c": 0.0}
    arctan = {f.id: f.score for f in fuse(found, weights, method="arctan")}
    assert arctan["a"] == pytest.approx(0.7 * (0.5 + math.atan(0.9) / math.pi))
    assert arctan["c"] == pytest.approx(0.3 * 2 * math.atan(4.0) / math.pi)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"dense": 0.0, "sparse": 0.0}, "All weights are 0"),
        ({"dense": -1.0, "sparse": 1.0}, "weight of dense must be a number from 0 up, not -1.0"),
        ({"dense": float("nan"), "sparse": 1.0}, "weight of dense must be a number from 0 up, not nan"),
        ({"dense": float("inf"), "sparse": 1.0}, "weight of dense must be a number from 0 up, not inf"),
        ({"dense": 1.0, "lexical": 1.0}, "no leg 'lexical' to weight. The legs are dense, sparse"),
        ({"dense": 1.0}, "There is no weight for sparse"),
    ],
)
def test_weights_that_cannot_be(weights: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_weights(weights, ["dense", "sparse"])


def test_weights_that_can() -> None:
    check_weights({"dense": 0.0, "sparse": 1.0}, ["sparse", "dense"])
