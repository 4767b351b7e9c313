"""How certain a mean or a difference is. Everything is seeded, so the same values give the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from m3index.evaluate.measures import Values

Test: TypeAlias = Literal["randomisation", "t"]

SEED = 13
RESAMPLES = 10_000
_EXACT = 14
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries with its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """b - a over the same queries: its mean with a confidence interval, the p-value of the hypothesis
    that a and b are equally good, and on how many queries b wins, loses or ties."""

    mean: float
    low: float
    high: float
    p: float
    wins: int
    losses: int
    ties: int


def estimate(values: Values, *, level: float = 0.95, seed: int = SEED) -> Estimate:
    """The percentile bootstrap over queries (Efron 1979; Sakai, SIGIR 2006), 10,000 resamples."""
    if len(values) == 0:
        raise ValueError("no values")
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[rng.integers(0, len(values), (_CHUNK, len(values)))].mean(axis=1)
            for _ in range(RESAMPLES // _CHUNK)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def difference(a: Values, b: Values, *, test: Test = "randomisation", seed: int = SEED) -> PairedDifference:
    """b against a, paired by query."""
    gains = b - a
    interval = estimate(gains, seed=seed)
    p = randomisation_test(gains, seed=seed) if test == "randomisation" else t_test(gains)
    return PairedDifference(
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        p=p,
        wins=int((gains > 0).sum()),
        losses=int((gains < 0).sum()),
        ties=int((gains == 0).sum()),
    )


def randomisation_test(gains: Values, *, seed: int = SEED) -> float:
    """Fisher's paired randomisation test, two-sided (Smucker, Allan and Carterette, CIKM 2007).

    How often the mean is at least as far from 0 if each query's gain keeps or changes its sign at random:
    over all sign patterns if there are few, else over 10,000 of them plus the observed one.
    """
    gains = gains[gains != 0]
    if len(gains) == 0:
        return 1.0
    observed = abs(gains.sum()) * (1 - 1e-12)
    if len(gains) <= _EXACT:
        patterns = (np.arange(2 ** len(gains))[:, None] >> np.arange(len(gains))) & 1
        return float((np.abs((2 * patterns - 1) @ gains) >= observed).mean())
    rng = np.random.default_rng(seed)
    reached = 0
    for _ in range(RESAMPLES // _CHUNK):
        signs = 2 * rng.integers(0, 2, (_CHUNK, len(gains)), dtype=np.int8) - 1
        reached += int((np.abs(signs @ gains) >= observed).sum())
    return (reached + 1) / (RESAMPLES + 1)


def t_test(gains: Values) -> float:
    """Student's paired t-test, two-sided; 1 if no query differs or there is only one."""
    if len(gains) < 2 or not gains.any():
        return 1.0
    if np.ptp(gains) == 0:
        return 0.0
    from scipy import stats

    return float(stats.ttest_1samp(gains, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for many comparisons (1979): adjusted p-values, in the same order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for step, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def bounded_mean(values: Values, *, level: float = 0.95) -> Estimate:
    """The mean of values from 0 to 1 with an interval that holds at any sample size and for any distribution,
    also for recalls of which nearly all are 1, where the bootstrap misses the mean in every second sample.

    By betting (Waudby-Smith and Ramdas, JRSS B 2024, hedged capital): a mean is excluded if bets against it
    would have multiplied the capital by 1 / (1 - level). The values must be in random order.
    """
    if len(values) == 0:
        raise ValueError("no values")
    count = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (count + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets = np.sqrt(2 * np.log(2 / (1 - level)) / (len(values) * before))[:, None]
    step = 1 / _GRID
    candidates = np.linspace(0.0, 1.0, _GRID + 1)
    kept: list[float] = []
    for start in range(0, len(candidates), _PART):
        part = candidates[start : start + _PART]
        apart = values[:, None] - part
        above = np.minimum(bets, _TRUNCATION / np.maximum(part, step / 2))
        below = np.minimum(bets, _TRUNCATION / np.maximum(1 - part, step / 2))
        capital = np.maximum(
            np.cumsum(np.log1p(above * apart), axis=0).max(axis=0),
            np.cumsum(np.log1p(-below * apart), axis=0).max(axis=0),
        )
        kept.extend(part[capital - np.log(2) < -np.log(1 - level)].tolist())
    mean = float(values.mean())
    low, high = (min(kept), max(kept)) if kept else (mean, mean)
    return Estimate(mean, max(0.0, min(mean, low - step)), min(1.0, max(mean, high + step)))


_GRID, _PART, _TRUNCATION = 1_000, 50, 0.75
