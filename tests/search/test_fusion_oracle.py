"""Our fusion against ranx's, in an environment that has ranx: `pytest -m oracle` there."""

from __future__ import annotations

import random

import pytest

from m3index.search.fusion import Ranking, fuse

QUERIES = 3000
IDS = [f"d{i:02}" for i in range(40)]

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]


def legs(rng: random.Random) -> dict[str, dict[str, float]]:
    """Two legs with distinct scores, which overlap in part."""
    found = {}
    for leg, scale in (("dense", 1.0), ("sparse", 25.0)):
        ids = rng.sample(IDS, rng.randint(2, 30))
        found[leg] = {id_: rng.random() * scale for id_ in ids}
    return found


def ours(found: dict[str, dict[str, float]], weights: dict[str, float], method: str) -> dict[str, float]:
    rankings = {}
    for leg, scores in found.items():
        ids = sorted(scores, key=lambda id_: -scores[id_])
        rankings[leg] = Ranking(ids, [scores[id_] for id_ in ids])
    return {f.id: f.score for f in fuse(rankings, weights, method=method)}  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["rrf", "minmax"])
def test_ranx(method: str) -> None:
    ranx = pytest.importorskip("ranx")
    rng = random.Random(17)
    queries = {f"q{i}": legs(rng) for i in range(QUERIES)}
    weights = {"dense": 0.7, "sparse": 0.3} if method == "minmax" else {"dense": 1.0, "sparse": 1.0}
    runs = [ranx.Run({q: found[leg] for q, found in queries.items()}) for leg in ("dense", "sparse")]
    if method == "rrf":
        theirs = ranx.fuse(runs=runs, norm=None, method="rrf", params={"k": 60})
    else:
        theirs = ranx.fuse(runs=runs, norm="min-max", method="wsum", params={"weights": (0.7, 0.3)})
    for q, found in queries.items():
        assert ours(found, weights, method) == pytest.approx(dict(theirs.run[q]), abs=1e-6), q
