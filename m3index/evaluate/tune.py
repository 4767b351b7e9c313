"""Weights, k and depth of the fusion, chosen on judged queries without searching the index again.

The legs are stored as ranks; the value of a setting follows from the positions of the relevant documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3index.errors import UsageError
from m3index.evaluate.held import HeldQuery, positions
from m3index.evaluate.measures import Values
from m3index.evaluate.positional import positional_measure
from m3index.evaluate.statistics import SEED, PairedDifference, difference
from m3index.search.fusion import RRF_K
from m3index.search.options import SearchOptions

SHARES: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(21))
KS: tuple[float, ...] = (1, 5, 10, 20, 40, 60, 100, 200)
DEPTHS: tuple[int, ...] = (20, 50, 100, 200)
USUAL_DEPTH = SearchOptions().leg_depth
ALPHA = 0.05

Labels: TypeAlias = Literal["qrels", "silver"]


@dataclass(frozen=True, slots=True)
class Setting:
    """share: the sparse leg's share of the weight; the dense leg has the rest. k: of reciprocal rank
    fusion. depth: documents that each leg returns."""

    share: float
    k: float
    depth: int

    @property
    def weights(self) -> dict[str, float]:
        return {"dense": round(1 - self.share, 6), "sparse": self.share}


@dataclass(frozen=True, slots=True)
class Fold:
    """One part of the cross-validation: the setting chosen without these queries, its value on them, and that
    of the default."""

    chosen: Setting
    queries: int
    value: float
    default: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """default_value: of a search without weights, which fuses by evidence. baseline: equal weights, k = 60,
    the usual depth. best: the best on all queries, with its value on them, which is optimistic. gain: of the
    settings chosen in cross-validation over the default, on queries not used for the choice. recommended:
    `best` if that gain is significant; None: the default. shares, ks, surface: the value by share and k,
    (shares, ks), at the best depth."""

    measure: str
    labels: Labels
    queries: int
    default_value: float
    baseline: Setting
    baseline_value: float
    best: Setting
    best_value: float
    gain: PairedDifference
    significant: bool
    recommended: Setting | None
    folds: tuple[Fold, ...]
    shares: tuple[float, ...]
    ks: tuple[float, ...]
    surface: Values


def table(
    held: Sequence[HeldQuery],
    measure: str,
    shares: Sequence[float] = SHARES,
    ks: Sequence[float] = KS,
    depths: Sequence[int] = DEPTHS,
) -> Values:
    """The value of the measure for every query and setting: (queries, shares, ks, depths)."""
    score = positional_measure(measure)
    values = np.zeros((len(held), len(shares), len(ks), len(depths)))
    for i, query in enumerate(held):
        for d, depth in enumerate(depths):
            places = positions(query, shares, ks, depth).reshape(len(query.relevant), len(shares) * len(ks))
            values[i, :, :, d] = score(query, places).reshape(len(shares), len(ks))
    return values


def tune(
    held: Sequence[HeldQuery],
    measure: str = "nDCG@10",
    *,
    shares: Sequence[float] = SHARES,
    ks: Sequence[float] = KS,
    depths: Sequence[int] = DEPTHS,
    folds: int = 5,
    labels: Labels = "qrels",
    seed: int = SEED,
) -> Tuning:
    """Searches the whole grid, and measures on held-out queries what the choice gains.

    For each of `folds` parts, the setting that is best on the other parts is compared with the default
    on this one; the gains over all queries are tested by paired randomisation. Of equally good settings,
    the one nearest to the baseline is chosen.
    """
    if len(held) < 2 * folds:
        raise UsageError(
            f"Tuning with {folds} folds needs at least {2 * folds} judged queries; there are {len(held)}."
        )
    baseline = Setting(0.5, RRF_K, USUAL_DEPTH if USUAL_DEPTH in depths else max(depths))
    shares, ks = sorted({*shares, baseline.share}), sorted({*ks, baseline.k})
    settings = [Setting(s, k, d) for s, k, d in product(shares, ks, depths)]
    values = table(held, measure, shares, ks, depths)
    flat = values.reshape(len(held), -1)
    score = positional_measure(measure)
    default = np.array([float(score(query, query.default[:, None])[0]) for query in held])
    nearest = sorted(range(len(settings)), key=lambda i: _distance(settings[i], baseline))
    base = settings.index(baseline)

    def choose(queries: NDArray[np.int64]) -> int:
        means = flat[queries][:, nearest].mean(axis=0)
        return nearest[int(np.argmax(means >= means.max() - 1e-12))]

    all_queries = np.arange(len(held))
    parts = np.array_split(np.random.default_rng(seed).permutation(len(held)), folds)
    gains = np.zeros(len(held))
    outcomes: list[Fold] = []
    for part in parts:
        chosen = choose(np.setdiff1d(all_queries, part))
        gains[part] = flat[part, chosen] - default[part]
        outcomes.append(
            Fold(settings[chosen], len(part), float(flat[part, chosen].mean()), float(default[part].mean()))
        )
    gain = difference(np.zeros(len(held)), gains, seed=seed)
    best = choose(all_queries)
    significant = gain.mean > 0 and gain.p < ALPHA
    return Tuning(
        measure=measure,
        labels=labels,
        queries=len(held),
        default_value=float(default.mean()),
        baseline=baseline,
        baseline_value=float(flat[:, base].mean()),
        best=settings[best],
        best_value=float(flat[:, best].mean()),
        gain=gain,
        significant=significant,
        recommended=settings[best] if significant else None,
        folds=tuple(outcomes),
        shares=tuple(shares),
        ks=tuple(ks),
        surface=values[:, :, :, list(depths).index(settings[best].depth)].mean(axis=0),
    )


def _distance(setting: Setting, baseline: Setting) -> tuple[float, float, float]:
    return (
        abs(setting.share - baseline.share),
        abs(math.log((setting.k + 1) / (baseline.k + 1))),
        abs(setting.depth - baseline.depth),
    )


def tuning_json(found: Tuning) -> dict[str, Any]:
    return {
        "type": "tuning",
        "measure": found.measure,
        "labels": found.labels,
        "queries": found.queries,
        "default": {"fusion": SearchOptions().method, "value": found.default_value},
        "baseline": {**asdict(found.baseline), "value": found.baseline_value},
        "best": {**asdict(found.best), "value": found.best_value},
        "gain": asdict(found.gain),
        "significant": found.significant,
        "recommended": None
        if found.recommended is None
        else {**asdict(found.recommended), "weights": found.recommended.weights},
        "folds": [
            {**asdict(f.chosen), "queries": f.queries, "value": f.value, "default": f.default}
            for f in found.folds
        ],
        "heat_map": {
            "shares": list(found.shares),
            "ks": list(found.ks),
            "values": [[round(float(v), 6) for v in row] for row in found.surface],
        },
    }
