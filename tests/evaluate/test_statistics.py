from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from m3index.evaluate.statistics import bounded_mean, difference, estimate, holm, randomisation_test, t_test

RNG = np.random.default_rng(4)


def test_the_interval_is_about_the_normal_one() -> None:
    values = RNG.normal(0.6, 0.2, 800)
    found = estimate(values)
    margin = 1.96 * values.std() / np.sqrt(800)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - margin, abs=margin * 0.1)
    assert found.high == pytest.approx(values.mean() + margin, abs=margin * 0.1)
    assert estimate(values) == found


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(9)
    covered = sum((e := estimate(rng.beta(2, 3, 60), seed=seed)).low <= 0.4 <= e.high for seed in range(120))
    assert 105 <= covered <= 120


def test_no_values() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate(np.array([]))


def test_few_queries_are_tested_exactly() -> None:
    gains = np.array([0.3, -0.1, 0.2, 0.4, 0.0, 0.25])
    real = gains[gains != 0]
    sums = [
        abs(sum(s * g for s, g in zip(signs, real, strict=True)))
        for signs in itertools.product([1, -1], repeat=5)
    ]
    assert randomisation_test(gains) == np.mean([s >= abs(real.sum()) - 1e-12 for s in sums])


def test_many_queries_agree_with_scipy() -> None:
    gains = RNG.normal(0.02, 0.15, 200)
    theirs = stats.permutation_test(
        (gains,), np.sum, permutation_type="samples", n_resamples=10_000, rng=np.random.default_rng(1)
    ).pvalue
    assert randomisation_test(gains) == pytest.approx(theirs, abs=0.015)
    assert t_test(gains) == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)


def test_under_the_null_p_is_uniform() -> None:
    rng = np.random.default_rng(2)
    p_values = [randomisation_test(rng.normal(0, 1, 40), seed=i) for i in range(150)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("test", [randomisation_test, t_test])
def test_no_difference_at_all(test) -> None:  # type: ignore[no-untyped-def]
    assert test(np.zeros(50)) == 1.0
    assert test(np.array([])) == 1.0


def test_every_query_gains_the_same() -> None:
    assert t_test(np.full(30, 0.1)) == 0.0
    assert randomisation_test(np.full(30, 0.1)) < 0.001


def test_a_difference_counts_wins_and_losses() -> None:
    a, b = np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.4, 0.5, 0.2, 1.0])
    found = difference(a, b)
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)
    assert found.mean == pytest.approx(0.025)
    back = difference(b, a)
    assert (back.p, back.mean) == (found.p, pytest.approx(-0.025))
    assert difference(a, b, test="t").p == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(
        p <= q <= min(1.0, p * len(p_values) + 1e-12) or q >= p
        for p, q in zip(p_values, adjusted, strict=True)
    )
    assert max(adjusted) <= 1
    for i, j in itertools.combinations(range(len(p_values)), 2):
        if p_values[i] < p_values[j]:
            assert adjusted[i] <= adjusted[j]


def beta_binomial(
    mean: float, correlation: float, k: int
) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Recalls of the first k. correlation: whether the hits of one query are lost together."""

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        if not correlation:
            return rng.binomial(k, mean, count) / k
        scale = (1 - correlation) / correlation
        return rng.binomial(k, rng.beta(mean * scale, (1 - mean) * scale, count)) / k

    return draw


@pytest.mark.parametrize("count", [50])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("mean", [0.7, 0.95, 0.999])
def test_the_interval_of_a_recall_covers_its_mean(mean: float, correlation: float, count: int) -> None:
    """At least 93 % of the nominal 95 %, also where nearly all recalls are 1."""
    rng = np.random.default_rng(7)
    draw = beta_binomial(mean, correlation, 10)
    runs = 120
    estimates = [bounded_mean(draw(rng, count)) for _ in range(runs)]
    covered = sum(e.low <= mean <= e.high for e in estimates)
    assert covered / runs >= 0.93
    assert all(0 <= e.low <= e.mean <= e.high <= 1 for e in estimates)


def test_the_interval_of_a_recall_narrows() -> None:
    widths = [(e := bounded_mean(np.ones(count))).high - e.low for count in (10, 30, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.006
    values = beta_binomial(0.98, 0.1, 10)(np.random.default_rng(3), 1000)
    many = bounded_mean(values)
    assert many.high - many.low < 0.015
    wide, narrow = (bounded_mean(values[:200], level=level) for level in (0.99, 0.8))
    assert wide.low < narrow.low <= narrow.mean <= narrow.high < wide.high
    with pytest.raises(ValueError, match="no values"):
        bounded_mean(np.array([]))


def test_the_bootstrap_misses_recalls_near_one() -> None:
    """Why a recall has another interval than an evaluation."""
    rng = np.random.default_rng(7)
    draw = beta_binomial(0.999, 0.4, 10)
    samples = [draw(rng, 100) for _ in range(60)]
    missed = sum(not e.low <= 0.999 <= e.high for e in map(estimate, samples))
    assert missed > 20
